/* GStreamer measured as Portcullis measures itself: a source that fills buffers and a sink that reads a word of every 64
 * bytes, on two pinned cores, in one process with a queue between them or in two with shared memory between them.
 *
 *     gstreamer queue|shm SIZE COUNT [INTERVAL_US]      one JSON object on standard output
 *
 * With an interval the source makes one buffer in each, and what counts is how old a buffer is when it arrives.
 * Of COUNT the first tenth warms up.
 */
#define _GNU_SOURCE
#include <gst/base/gstpushsrc.h>
#include <gst/gst.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What both processes see. */
typedef struct {
    volatile guint64 start, end, arrived, wrong, sum;
    volatile double spent[2];
    volatile int done, failed;
    float ages[];
} Shared;

static Shared *shared;
static guint64 size, count, warm, interval_us;
static int near_core, far_core;
static GMainLoop *loop;

static guint64 now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static double processor_time(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The calling thread only, and what it starts. */
static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* ---- the source: takes the memory that its consumer offers ---- */

typedef struct { GstPushSrc base; guint64 next; guint64 due; double before; } Filler;
typedef struct { GstPushSrcClass base; } FillerClass;
G_DEFINE_TYPE(Filler, filler, GST_TYPE_PUSH_SRC)
static GstStaticPadTemplate any_output =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("application/x-peer"));

static GstFlowReturn filler_fill(GstPushSrc *base, GstBuffer *buffer) {
    Filler *self = (Filler *)base;
    GstMapInfo map;
    if (self->next == 0) pin(near_core);
    if (self->next == warm) self->before = processor_time();
    if (self->next == count + warm) {
        shared->spent[0] = processor_time() - self->before;
        return GST_FLOW_EOS;
    }
    if (interval_us) {
        self->due = (self->due ? self->due : now()) + interval_us * 1000;
        struct timespec due = {self->due / 1000000000ull, self->due % 1000000000ull};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
    if (!gst_buffer_map(buffer, &map, GST_MAP_WRITE)) return GST_FLOW_ERROR;
    memset(map.data, (int)self->next, map.size);
    ((guint64 *)map.data)[1] = self->next++;
    ((guint64 *)map.data)[0] = now();
    gst_buffer_unmap(buffer, &map);
    return GST_FLOW_OK;
}

static void filler_init(Filler *self) { gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME); }

static void filler_class_init(FillerClass *class) {
    gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &any_output);
    gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(class), "Filler", "Source", "Fills buffers", "Portcullis");
    ((GstPushSrcClass *)class)->fill = filler_fill;
}

/* ---- the sink ---- */

static GstPadProbeReturn arrived(GstPad *pad, GstPadProbeInfo *info, gpointer unused) {
    GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
    GstMapInfo map;
    static double before;
    guint64 at = now(), sum = 0;
    (void)pad, (void)unused;
    if (!gst_buffer_map(buffer, &map, GST_MAP_READ)) {
        shared->failed = 1;
        return GST_PAD_PROBE_OK;
    }
    guint64 made = ((guint64 *)map.data)[0], number = ((guint64 *)map.data)[1];
    for (gsize offset = 0; offset + 8 <= map.size; offset += 64) sum += *(guint64 *)(map.data + offset);
    shared->sum += sum;
    if (map.size != size) shared->failed = 1;
    gst_buffer_unmap(buffer, &map);
    if (number == 0) pin(far_core);
    if (number == warm) shared->start = at, before = processor_time();
    if (number < warm) return GST_PAD_PROBE_OK;
    if (shared->arrived != number - warm) shared->wrong++;
    if (shared->arrived < count) shared->ages[shared->arrived++] = (at - made) / 1e3;
    if (number == count + warm - 1) {
        shared->end = now();
        shared->spent[1] = processor_time() - before;
        shared->done = 1;
        g_main_loop_quit(loop);
    }
    return GST_PAD_PROBE_OK;
}

static GstElement *make(const char *factory) {
    GstElement *element = gst_element_factory_make(factory, NULL);
    if (!element) {
        fprintf(stderr, "gstreamer: there is no %s\n", factory);
        exit(77);
    }
    return element;
}

static GstElement *make_sink(void) {
    GstElement *sink = make("fakesink");
    g_object_set(sink, "sync", FALSE, "enable-last-sample", FALSE, NULL);
    GstPad *pad = gst_element_get_static_pad(sink, "sink");
    gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, arrived, NULL, NULL);
    return sink;
}

static gboolean on_bus(GstBus *bus, GstMessage *message, gpointer unused) {
    (void)bus, (void)unused;
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR && !shared->done) shared->failed = 1;
    if (shared->failed || shared->done) g_main_loop_quit(loop);
    return TRUE;
}

static gboolean look(gpointer unused) {
    (void)unused;
    if (shared->done || shared->failed) g_main_loop_quit(loop);
    return TRUE;
}

static void play(GstElement *one, GstElement *between, GstElement *other) {
    GstElement *pipeline = gst_pipeline_new(NULL);
    gst_bus_add_watch(gst_element_get_bus(pipeline), on_bus, NULL);
    gst_bin_add_many(GST_BIN(pipeline), one, other, NULL);
    if (between) gst_bin_add(GST_BIN(pipeline), between);
    gboolean linked = between ? gst_element_link_many(one, between, other, NULL) : gst_element_link(one, other);
    if (!linked) shared->failed = 1;
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    g_timeout_add(20, look, NULL);
    g_main_loop_run(loop);
}

static int by_age(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: gstreamer queue|shm SIZE COUNT [INTERVAL_US]\n");
        return 2;
    }
    int apart = !strcmp(argv[1], "shm");
    size = strtoull(argv[2], NULL, 0), count = strtoull(argv[3], NULL, 0);
    interval_us = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
    warm = count / 10 < 10 ? 10 : count / 10;
    if (size < 16 || !count) return 2;
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    near_core = far_core = -1;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &allowed)) {
            if (near_core < 0) near_core = core;
            else if (far_core < 0) far_core = core;
        }
    if (far_core < 0) far_core = near_core;
    shared = mmap(NULL, sizeof *shared + count * sizeof(float), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 1;
    char socket[64];
    snprintf(socket, sizeof socket, "/tmp/peer-gstreamer-%d", getpid());
    pid_t reader = 0;
    if (apart && !(reader = fork())) {
        pin(far_core);
        gst_init(&argc, &argv);
        loop = g_main_loop_new(NULL, FALSE);
        GstElement *source = make("shmsrc");
        g_object_set(source, "socket-path", socket, NULL);
        for (int turn = 0; turn < 2000 && access(socket, F_OK); turn++) usleep(5000);
        play(source, NULL, make_sink());
        /* The writer waits for its buffers to come back. */
        usleep(200000);
        _exit(0);
    }
    if (apart) pin(near_core);
    gst_init(&argc, &argv);
    loop = g_main_loop_new(NULL, FALSE);
    GstElement *source = g_object_new(filler_get_type(), NULL);
    g_object_set(source, "blocksize", (guint)size, NULL);
    if (apart) {
        GstElement *sink = make("shmsink");
        /* Room for 64 buffers: with much more of them unpaced runs are known to hang. */
        g_object_set(sink, "socket-path", socket, "wait-for-connection", TRUE, "sync", FALSE, "async", FALSE,
                     "enable-last-sample", FALSE, "shm-size", (guint)((size + 64) * 64), NULL);
        play(source, NULL, sink);
    } else {
        play(source, make("queue"), make_sink());
    }
    for (int turn = 0; turn < 1000 && !(shared->done || shared->failed); turn++) usleep(10000);
    if (reader > 0) {
        for (int turn = 0; turn < 100 && waitpid(reader, NULL, WNOHANG) != reader; turn++) usleep(10000);
        kill(reader, 9);
    }
    unlink(socket);
    if (!shared->done || shared->failed || shared->wrong) {
        fprintf(stderr, "gstreamer: the run failed after %lu buffers\n", (unsigned long)shared->arrived);
        _exit(1);
    }
    guint64 n = shared->arrived;
    qsort(shared->ages, n, sizeof(float), by_age);
    /* In one process both sides see the time of both. */
    double cpu = apart ? shared->spent[0] + shared->spent[1] : shared->spent[1];
    printf("{\"bench\":\"gstreamer-%s\",\"size\":%lu,\"count\":%lu,\"touch\":true,\"value\":%.1f,\"unit\":\"samples/s\","
           "\"cpu_us\":%.3f,\"p50\":%.1f,\"p99\":%.1f}\n",
           argv[1], (unsigned long)size, (unsigned long)n, n / ((shared->end - shared->start) / 1e9), cpu * 1e6 / n,
           shared->ages[n / 2], shared->ages[(guint64)(n * 0.99)]);
    fflush(stdout);
    _exit(0);
}
