//! Transactions on the node: judged, then committed.

use twinseal_api::v1;

use super::keys::Live;
use super::model::State;
use super::node::{Node, sources};
use super::parse::{self, ItemKey};
use super::refusal::{Code, Refused, reason};
use super::transaction::{self, Outcome, Start};
use crate::ports::Device;
use crate::tables::Tables;

impl Node {
    /// Applies a transaction: all of it, or nothing. Tells the generation.
    ///
    /// In this order: parse and check, make keys, open ports, compile, burn secrets, publish, close ports. Whatever fails
    /// before publication is undone; what was burned by then is not, which is the last thing that can fail.
    pub fn apply(&mut self, request: v1::ApplyRequest) -> Result<u64, Refused> {
        let mut parsed = parse::changes(request.changes);
        if let Some(expected) = request.expected_generation
            && expected != self.state.generation
        {
            // How the changes fit tables that the controller does not know would only confuse.
            let mut refused = Refused::whole(
                Code::Generation,
                "expected_generation",
                format!(
                    "the tables are at generation {}, not {expected}",
                    self.state.generation
                ),
                "get the state and apply the change to that",
            );
            refused.append(std::mem::take(&mut parsed.refused));
            return Err(refused);
        }
        let (outcome, mut refused) = transaction::judge(&self.state, parsed);
        self.check_burned(&outcome.starts, &mut refused);
        if request.dry_run || !refused.is_empty() {
            self.check_devices(&outcome, &mut refused);
        }
        refused.unless(())?;
        let live = self
            .live
            .next(&outcome.state, &outcome.secrets, &self.sa)
            .map_err(|error| error.refused(&outcome.touched))?;
        if request.dry_run {
            return Ok(self.state.generation);
        }
        self.commit(outcome, live)
    }

    fn check_burned(&self, starts: &[Start], refused: &mut Refused) {
        for start in starts {
            if self.burned.is_burned(&start.fingerprint) {
                let item = ItemKey::Transmit(start.key.owner.clone());
                let why = format!(
                    "the secret {} of the {} has sealed before, and its counters are lost",
                    start.fingerprint, start.key
                );
                let item = reason(
                    Code::SecretBurned,
                    Some(start.change),
                    &item,
                    "epoch",
                    why,
                    "load a new secret, in a new epoch, at both ends",
                );
                refused.push(item);
            }
        }
    }

    /// As far as can be told without opening them.
    fn check_devices(&self, outcome: &Outcome, refused: &mut Refused) {
        for (name, port) in outcome.state.ports.iter() {
            if let Device::AfXdp { netdev, .. } = &port.spec.device
                && self.netlink.view.has_device(netdev) == Some(false)
            {
                let item = ItemKey::Port(name.clone());
                let change = outcome.touched.get(&item).copied();
                let why = format!("there is no network device {netdev}");
                let item = reason(
                    Code::Device,
                    change,
                    &item,
                    "af_xdp.netdev",
                    why,
                    "make the device, or name another as in `ip link`",
                );
                refused.push(item);
            }
        }
    }

    fn commit(&mut self, outcome: Outcome, live: Live) -> Result<u64, Refused> {
        let Outcome {
            state,
            touched,
            starts,
            changes,
            ..
        } = outcome;
        let addresses = self.netlink.view.own_addresses();
        let undo = self
            .ports
            .prepare(&self.pool, &state, &touched, &addresses)?;
        match self.compile_and_burn(&state, &live, &starts) {
            Ok(tables) => self.pool.publish(tables),
            Err(refused) => {
                self.ports.undo(&self.pool, undo);
                return Err(refused);
            }
        }
        let old = std::mem::replace(&mut self.state, state);
        self.live = live;
        self.ports.sweep(&self.pool, &self.state);

        let generation = self.state.generation;
        tracing::info!(generation, changes, "transaction applied");
        self.health
            .changed(&self.events, &old, &self.state, changes);
        self.accounts.changed(&old, &self.state, &self.live);
        self.update_health();
        let sources = sources(&self.state, &self.live, &self.ports, &self.netlink);
        self.resolver.links(&self.netlink, &sources);
        Ok(generation)
    }

    /// The tables to publish; the secrets that they transmit with are on disk by then.
    fn compile_and_burn(
        &mut self,
        state: &State,
        live: &Live,
        starts: &[Start],
    ) -> Result<Tables, Refused> {
        let sources = sources(state, live, &self.ports, &self.netlink);
        let tables = self.compiler.compile(self.publications + 1, &sources);
        let tables = tables.ok_or_else(|| {
            Refused::whole(
                Code::Internal,
                "",
                "the tables could not be made: this is a fault of the node".to_owned(),
                "report it with the transaction",
            )
        })?;
        let fingerprints: Vec<_> = starts.iter().map(|start| start.fingerprint).collect();
        if !fingerprints.is_empty() {
            self.burned.burn_all(&fingerprints).map_err(|error| {
                Refused::whole(
                    Code::Storage,
                    "",
                    error.to_string(),
                    "see to the node's state directory; nothing was changed",
                )
            })?;
        }
        self.publications += 1;
        Ok(tables)
    }
}
