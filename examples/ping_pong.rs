//! One actor on both sides of a process wall, and nothing of media: two players hit a ball to and fro.
//!
//! The program is its own host. Each message carries a handle to whoever hit the ball, and the handle works wherever the other
//! player is.

use actix::{Actor, AsyncContext, Handler};
use portcullis::bridge::{Context, ReplyFuture};
use portcullis::{Handle, Remote, Result, host, interface, runtime};
use serde::{Deserialize, Serialize};

/// A ball that is still to be hit so often, and who hit it. Answered by all who hit it from now on.
#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = Vec<String>)]
struct Ball(u32, Handle<Table>);

interface! { Table = "example.Table" { Ball } }

struct Player(&'static str);

impl Actor for Player {
    type Context = Context<Self>;
}

impl Handler<Ball> for Player {
    type Result = ReplyFuture<Vec<String>>;

    fn handle(&mut self, Ball(hits, other): Ball, ctx: &mut Self::Context) -> Self::Result {
        let (name, me) = (self.0, Handle::new(&ctx.address()));
        ReplyFuture::new(async move {
            let mut players = vec![name.to_owned()];
            if let Some(hits) = hits.checked_sub(1) {
                players.extend(other.send(Ball(hits, me)).await?);
            }
            Ok(players)
        })
    }
}

fn main() -> Result<()> {
    // In the other process this serves its player and never returns.
    host::init_actor(|| Handle::<Table>::start(Player("there")));
    futures::executor::block_on(async {
        let there = host::Host::current().start_actor::<Table>().await?;
        let here = runtime::run(|| async { Ok(Handle::<Table>::start(Player("here"))) }).await?;
        let players = there.root().send(Ball(5, here)).await?;
        println!("{}", players.join(" "));
        Ok(())
    })
}
