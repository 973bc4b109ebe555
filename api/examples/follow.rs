//! Makes a VRF at a node, says what became of it, and follows the node's events:
//! `cargo run --example follow -- /run/twinseal/a.sock red`

use std::error::Error as _;
use std::process::ExitCode;

use twinseal_api::client::{Address, Client, Error, set};
use twinseal_api::v1::{self, item::Item};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(vrf)) = (arguments.next(), arguments.next()) else {
        eprintln!("give the node's control socket, and the name of a VRF");
        return ExitCode::from(2);
    };
    match follow(&socket, vrf).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  as {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn follow(socket: &str, vrf: String) -> Result<(), Error> {
    let mut node = Client::connect(Address::socket(socket)).await?;
    // Before anything changes, so that no event is missed.
    let mut events = node.events([v1::EventKind::Configuration, v1::EventKind::Fault]);
    events.open().await?;
    let request = v1::ApplyRequest {
        changes: vec![set(Item::Vrf(v1::Vrf { name: vrf }))],
        ..Default::default()
    };
    match node.apply(request).await {
        Ok(applied) => println!("generation {}", applied.generation),
        Err(Error::Refused(refusal)) => {
            for item in refusal.items {
                println!("refused: {}: {}; {}", item.item, item.reason, item.fix);
            }
        }
        Err(error) => return Err(error),
    }
    loop {
        let event = events.next().await?;
        println!("{}: {:?}", event.sequence, event.event);
    }
}
