//! The controller's hands: nothing but the control API.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use twinseal_api::v1;

use crate::plan::{Devices, Plan, Router};
use twinseal_ctl::client;
use twinseal_ctl::client::Client;

/// How long packets of an old epoch may be under way before its keys go.
const DRAIN: Duration = Duration::from_millis(300);

/// Connections to the three routers.
pub struct Controller {
    runtime: Runtime,
    clients: Vec<(Router, Client)>,
}

impl Controller {
    /// Connects to the routers' sockets.
    pub fn connect<'a>(
        sockets: impl IntoIterator<Item = (Router, &'a Path)>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut clients = Vec::new();
        for (router, socket) in sockets {
            let client = runtime.block_on(client::connect(Some(socket.to_owned())))?;
            clients.push((router, client));
        }
        Ok(Self { runtime, clients })
    }

    /// One transaction on one router.
    pub fn apply(&mut self, router: Router, changes: Vec<v1::Change>) -> anyhow::Result<u64> {
        Ok(self.ask(router, changes, false)?.generation)
    }

    /// Has a router judge a transaction without applying it.
    pub fn dry_run(
        &mut self,
        router: Router,
        changes: Vec<v1::Change>,
    ) -> anyhow::Result<v1::ApplyResponse> {
        self.ask(router, changes, true)
    }

    fn ask(
        &mut self,
        router: Router,
        changes: Vec<v1::Change>,
        dry_run: bool,
    ) -> anyhow::Result<v1::ApplyResponse> {
        let request = v1::ApplyRequest {
            changes,
            dry_run,
            ..v1::ApplyRequest::default()
        };
        let (runtime, client) = self.client(router)?;
        runtime
            .block_on(client.apply(request))
            .map_err(|error| anyhow::anyhow!("{}: {error}", router.name()))
    }

    /// A router's state, and what became of it.
    pub fn get(&mut self, router: Router) -> anyhow::Result<v1::GetResponse> {
        let (runtime, client) = self.client(router)?;
        let got = runtime.block_on(client.get(v1::GetRequest {}));
        Ok(got.context(router.name())?.into_inner())
    }

    /// A router's counters.
    pub fn stats(&mut self, router: Router) -> anyhow::Result<v1::StatsResponse> {
        let (runtime, client) = self.client(router)?;
        let got = runtime.block_on(client.stats(v1::StatsRequest {}));
        Ok(got.context(router.name())?.into_inner())
    }

    /// Loads tables and keys into all routers.
    pub fn start(&mut self, plan: &Plan, devices: &dyn Devices) -> anyhow::Result<()> {
        for router in Router::ALL {
            self.apply(router, plan.start(router, devices))?;
        }
        Ok(())
    }

    /// Replaces all six keys of the path while packets flow: make before break.
    pub fn rotate(&mut self, plan: &mut Plan) -> anyhow::Result<()> {
        let old = plan.next_epoch()?;
        for router in Router::ALL {
            self.apply(router, plan.install(router))?;
        }
        for router in Router::ALL {
            self.apply(router, plan.transmit(router))?;
        }
        std::thread::sleep(DRAIN);
        for router in Router::ALL {
            self.apply(router, plan.retire(router, old))?;
        }
        Ok(())
    }

    /// Waits until every link of every router is up.
    pub fn wait_for_links(&mut self, patience: Duration) -> anyhow::Result<()> {
        let begin = std::time::Instant::now();
        for router in Router::ALL {
            while let Some(down) = self.get(router)?.links.iter().find(|link| !link.up) {
                anyhow::ensure!(
                    begin.elapsed() < patience,
                    "{}: link {} did not come up: its next hop does not answer",
                    router.name(),
                    down.link
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn client(&mut self, router: Router) -> anyhow::Result<(&Runtime, &mut Client)> {
        let client = self.clients.iter_mut().find(|(known, _)| *known == router);
        let (_, client) = client.context("not connected to this router")?;
        Ok((&self.runtime, client))
    }
}
