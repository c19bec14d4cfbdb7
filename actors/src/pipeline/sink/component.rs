//! Renders with a sink component on its worker.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use portcullis_engine::component::ByteSink;
use portcullis_engine::{Error, MediaSink as SinkComponent, MediaType, Result, Sample};

use super::Renderer;
use crate::pipeline::port::{AllocationRequirements, Epoch};
use crate::worker::Worker;

/// Renders with a sink component.
pub(crate) struct ComponentRenderer {
    worker: Worker<Box<dyn SinkComponent>>,
    rateless: bool,
}

impl ComponentRenderer {
    /// Builds the sink on a thread of its own, or here if it is `inline`; answers the URL that it wants to write to.
    pub(crate) async fn create(
        inline: bool,
        build: impl FnOnce() -> Result<Box<dyn SinkComponent>> + Send + 'static,
    ) -> Result<(Self, Option<String>)> {
        let worker = if inline {
            Worker::inline(build)?
        } else {
            Worker::spawn("pc-sink", build).await?
        };
        let (rateless, url) = worker
            .call(|sink| Ok((sink.is_rateless(), sink.output_url().map(str::to_owned))))
            .await?;
        Ok((Self { worker, rateless }, url))
    }

    /// Gives the sink the output that it asked for.
    pub(crate) async fn attach(&self, output: Box<dyn ByteSink>) -> Result<()> {
        self.worker.call(move |sink| sink.attach(output)).await
    }
}

impl Renderer for ComponentRenderer {
    fn set_type(
        &mut self,
        stream: u32,
        media_type: MediaType,
    ) -> LocalBoxFuture<'static, Result<()>> {
        self.worker
            .call(move |sink| sink.set_type(stream, &media_type))
    }

    fn allocation(
        &mut self,
        stream: u32,
    ) -> LocalBoxFuture<'static, Result<AllocationRequirements>> {
        self.worker.call(move |sink| Ok(sink.allocation(stream)))
    }

    fn render(&mut self, stream: u32, samples: Vec<Sample>) -> LocalBoxFuture<'static, Result<()>> {
        self.worker.call(move |sink| {
            samples
                .into_iter()
                .try_for_each(|sample| sink.render(stream, sample))
        })
    }

    fn fault(&mut self, _: u32, _: Error) -> LocalBoxFuture<'static, Result<()>> {
        // A sink that writes or counts goes on with what is intact; the session hears of the fault as an event.
        std::future::ready(Ok(())).boxed_local()
    }

    fn end_of_stream(&mut self, stream: u32) -> LocalBoxFuture<'static, Result<()>> {
        self.worker.call(move |sink| sink.end_of_stream(stream))
    }

    fn fail(&mut self, _: u32, _: Error) -> LocalBoxFuture<'static, Result<()>> {
        std::future::ready(Ok(())).boxed_local()
    }

    fn finalize(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        self.worker.call(|sink| sink.finalize())
    }

    fn flush(&mut self, _: Epoch) {}

    fn is_rateless(&self) -> bool {
        self.rateless
    }
}
