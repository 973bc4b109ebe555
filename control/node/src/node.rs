//! The node: it owns everything, and all happens on its one control thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twinseal_api::v1;
use twinseal_crypto::{Fingerprint, SealSa};

use crate::accounts::Accounts;
use crate::audit::{Audit, Tapping, Written};
use crate::burned::Burned;
use crate::compile::{Compiler, Sources};
use crate::down::{Down, Members};
use crate::drain::Drains;
use crate::events::security::Security;
use crate::events::{Events, FaultKind};
use crate::handle::{Command, Commands, Reply, Settled, Tapped};
use crate::health::Health;
use crate::keys::{Live, SaConfig};
use crate::limits::Watch;
use crate::losses::Losses;
use crate::netlink::{Changed, Netlink};
use crate::pings::Pings;
use crate::ports::Ports;
use crate::requested::Requested;
use crate::requests::Requests;
use crate::resolve::Resolver;
use crate::restore::Restoring;
use crate::rollback::{LeftOut, Unrestored};
use crate::secrets::SecretHistory;
use crate::state_dir;
use crate::state_dir::{Lock, StateDirError};
use crate::store::{Store, Stored};
use crate::taps::{OpenTaps, Opened};
use crate::waiting::Waiting;
use crate::warnings::Warnings;
use twinseal_access::Access;
use twinseal_base::time::since_boot;
use twinseal_forward::reason::DropReason;
use twinseal_model::diff::Summary;
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Limits, OwnerName, State};
use twinseal_runtime::workers::Pool;

/// How often the house is kept.
const TICK: Duration = Duration::from_millis(25);
/// How often health is looked at when nothing happens.
const HEALTH: Duration = Duration::from_millis(250);
/// How often devices are looked at for what the kernel does not tell.
const DEVICES: Duration = Duration::from_secs(1);
/// How often drops are looked at.
const DROPS: Duration = Duration::from_secs(1);
/// Changes in the kernel come in bursts; this long after the first they are handled together. What packets wait for is
/// handled at once.
const COALESCE: Duration = Duration::from_millis(5);

/// The node.
pub struct Node {
    pub(super) name: String,
    pub(super) sa: SaConfig,
    pub(super) pool: Pool,
    pub(super) burned: Burned,
    pub(super) state: State,
    pub(super) live: Live,
    pub(super) ports: Ports,
    pub(super) compiler: Compiler,
    /// Numbers every snapshot, also those of neighbour changes.
    pub(super) publications: u64,
    pub(super) netlink: Netlink,
    pub(super) resolver: Resolver,
    pub(super) health: Health,
    pub(super) members: Members,
    pub(super) events: Events,
    security: Security,
    losses: Losses,
    pub(super) warnings: Warnings,
    pub(super) access: Access,
    /// Where calls are taken down.
    pub audit: Audit,
    pub(super) accounts: Accounts,
    pub(super) requests: Requests,
    pub(super) secret_history: SecretHistory,
    /// When a key stops to transmit, unless it says otherwise itself.
    pub key_limits: Limits,
    pub(super) watch: Watch,
    pub(super) drains: Drains,
    pub(super) taps: OpenTaps,
    pub(super) pings: Option<Pings>,
    /// What waits for its confirmation.
    pub(super) waiting: Waiting,
    pub(super) restoring: Option<Restoring>,
    /// What a rollback could not restore yet.
    pub(super) unrestored: Option<Unrestored>,
    /// The same for people, also when it is not tried any more.
    pub(super) left_out: Option<LeftOut>,
    /// What is wanted of the state directory, which is held if it is in use.
    pub(super) wanted: state_dir::Wanted,
    pub(super) state_dir: Option<Lock>,
    /// When a state directory that could not be used is looked at again; `None`: not any more.
    pub(super) look_again: Option<Instant>,
    /// When its files are looked at again.
    pub(super) look_at_files: Instant,
    /// What the next start would not take of it, as somebody changed it.
    pub(super) state_dir_changed: Option<String>,
    /// `None` if the tables are not to be stored.
    pub(super) store: Option<Store>,
    /// Whether it was told that they cannot be.
    pub(super) store_failing: bool,
    /// What of the stored tables was refused at the start.
    pub(super) damage: String,
    /// Tells when the last transaction is stored.
    pub(super) stored: Option<oneshot::Receiver<Stored>>,
    /// The same for its line of the audit log.
    pub(super) recorded: Option<Receiver<Stored>>,
    /// What the last transaction or dry run changed, until it is taken down.
    pub(super) changed: Option<Summary>,
    /// The generation that each owner confirmed last.
    pub(super) confirmed: BTreeMap<OwnerName, u64>,
    /// The SAs that began to transmit in this run, by the secrets that were burned for them.
    pub(super) began: HashMap<Fingerprint, Weak<SealSa>>,
    /// How many of them were alive when last looked at.
    pub(super) began_alive: usize,
}

impl Node {
    /// A node without ports, whose workers run.
    pub async fn start(
        name: String,
        sa: SaConfig,
        wanted: state_dir::Wanted,
        mut pool: Pool,
        events: Events,
        accounts: Accounts,
        access: Access,
    ) -> Self {
        let pings = pool.exchange().and_then(Pings::start);
        Self {
            audit: Audit::to_log(&name),
            name,
            sa,
            pool,
            burned: Burned::none(&StateDirError::Missing {
                path: wanted.path.clone(),
            }),
            state: State::default(),
            live: Live::default(),
            ports: Ports::default(),
            compiler: Compiler::default(),
            publications: 0,
            netlink: Netlink::start().await,
            resolver: Resolver::new(Instant::now()),
            health: Health::default(),
            members: Members::default(),
            events,
            security: Security::new(Instant::now()),
            losses: Losses::default(),
            warnings: Warnings::default(),
            access,
            accounts,
            requests: Requests::default(),
            secret_history: SecretHistory::default(),
            key_limits: Limits::default(),
            watch: Watch::default(),
            drains: Drains::default(),
            taps: OpenTaps::default(),
            pings,
            waiting: Waiting::default(),
            restoring: None,
            unrestored: None,
            left_out: None,
            wanted,
            state_dir: None,
            look_again: None,
            look_at_files: Instant::now(),
            state_dir_changed: None,
            damage: String::new(),
            store: None,
            store_failing: false,
            stored: None,
            changed: None,
            recorded: None,
            confirmed: BTreeMap::new(),
            began: HashMap::new(),
            began_alive: 0,
        }
    }

    /// Serves commands and keeps house until `shutdown`; then stops the workers.
    pub async fn run(mut self, mut commands: Commands, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let requested = Requested::new(&mut self.pool);
        let mut heard = Changed::default();
        let mut settle: Option<tokio::time::Instant> = None;
        let (mut health_at, mut devices_at, mut drops_at) =
            (Instant::now(), Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                command = commands.0.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => break,
                },
                changed = self.netlink.changed() => {
                    heard.merge(changed);
                    let awaited = self.resolver.heard(Instant::now(), &mut self.netlink);
                    let now = tokio::time::Instant::now();
                    let due = if awaited { now } else { now + COALESCE };
                    settle = Some(settle.map_or(due, |settle| settle.min(due)));
                }
                () = requested.wait() => self.ask_for_neighbours(),
                () = sleep_until(settle), if settle.is_some() => {
                    settle = None;
                    self.kernel_changed(std::mem::take(&mut heard)).await;
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.housekeep(now);
                    self.accounts.tick(&self.events, &self.pool);
                    let thorough = now.duration_since(devices_at) >= DEVICES;
                    if thorough || self.pool.dead_ports() != 0 {
                        devices_at = now;
                        self.follow_devices(thorough);
                    }
                    if now.duration_since(health_at) >= HEALTH {
                        health_at = now;
                        self.update_health();
                    }
                    if now.duration_since(drops_at) >= DROPS {
                        drops_at = now;
                        self.watch_limits(since_boot());
                        let drops = self.pool.drops();
                        self.security.tell(&self.events, now, &drops, &self.live);
                        let unknown = self.pool.unknown_receivers();
                        self.warnings.unknown_receivers(&self.state, &self.live, &unknown);
                        let unopened = dropped(&drops, DropReason::CircuitAuthentication);
                        self.warnings.unopened(&self.state, &self.live, unopened);
                        self.security.tell_refusals(&self.events, now, &self.access);
                        if self.losses.due(now) {
                            let stats = self.pool.stats();
                            self.losses.tell(&self.events, now, &self.state, &self.ports, &stats);
                        }
                        if let Some(error) = self.audit.take_failure() {
                            let detail = format!("{error}: the program's log has the lines; see to the disk and audit.file");
                            self.events.fault(FaultKind::AuditFailed, detail);
                        }
                    }
                }
            }
        }
        // Who asks from now on is told that the node is shutting down.
        drop(commands);
        tracing::info!("stopping: writes what is to be stored");
        // All that was handed over is written, while packets still flow.
        drop(self.store.take());
        tracing::info!(
            ports = self.ports.open().len(),
            workers = self.pool.workers(),
            "stopping: gives the devices back to the kernel"
        );
        // Whoever waits for echoes sees the end.
        drop(self.pings);
        drop(self.ports);
        self.pool.stop();
        self.accounts.finish(&self.events);
        // With the events' sender gone, streams of events end and the server can stop.
        drop(self.events);
    }

    fn handle_command(&mut self, command: Command) {
        // Whoever asked may have gone; a transaction holds all the same.
        match command {
            Command::Apply(transaction, mut entry, reply) => {
                self.forget_stored();
                let answer = self.apply(*transaction);
                entry.repeated = answer.as_ref().is_ok_and(|answer| answer.repeated);
                let generation = answer.as_ref().map(|answer| answer.generation);
                let written = self.take_down(entry, generation.into());
                self.settle(answer, written, reply);
            }
            Command::Confirm(request, mut entry, reply) => {
                self.forget_stored();
                let answer = self.confirm(&request, &mut entry);
                let written = self.take_down(entry, answer.as_ref().copied().into());
                self.settle(answer, written, reply);
            }
            Command::Rollback(request, entry, reply) => {
                self.forget_stored();
                let answer = self.rollback(&request);
                let written = self.rolled_back(entry, &answer);
                self.settle(answer, written, reply);
            }
            Command::Drain(request, by, entry, reply) => {
                self.forget_stored();
                let answer = self.drain(&request, &by);
                let generation = answer.as_ref().map(|_| self.state.generation);
                let written = self.take_down(entry, generation.into());
                self.settle(answer, written, reply);
            }
            Command::Capture(request, tapping, reply) => {
                let opened = self.capture(&request);
                let _ = reply.send(self.tapped(opened, tapping));
            }
            Command::Trace(request, tapping, reply) => {
                let opened = self.trace(&request);
                let _ = reply.send(self.tapped(opened, tapping));
            }
            Command::Ping(request, client, entry, reply) => {
                let begun = self.ping(&request, &client);
                let generation = begun.as_ref().map(|_| self.state.generation);
                let written = self.audit.write(entry, generation.into());
                let _ = reply.send((begun, written));
            }
            Command::Told(taken, reply) => {
                let _ = reply.send(self.told(&taken));
            }
            Command::Explain(request, reply) => {
                let _ = reply.send(self.explain(&request));
            }
            Command::Get(reply) => {
                let _ = reply.send(Box::new(self.moment()));
            }
            Command::Stats(reply) => {
                let _ = reply.send(Box::new(self.counts()));
            }
            Command::Events(reply) => {
                let _ = reply.send(self.events.log());
            }
            Command::Fault(kind, detail) => self.events.fault(kind, detail),
            Command::Usage(running, reply) => {
                let _ = reply.send(self.accounts.usage(running.as_ref()));
            }
        }
    }

    fn settle<T>(&mut self, answer: Result<T, Refused>, written: Written, reply: Reply<T>) {
        let stored = self.stored.take().filter(|_| answer.is_ok());
        let _ = reply.send(Settled {
            answer,
            stored,
            written,
        });
    }

    fn tapped<T>(
        &self,
        opened: Result<Opened<T>, Refused>,
        tapping: Tapping,
    ) -> (Tapped<T>, Written) {
        let generation = self.state.generation;
        let entry = tapping.begun(opened.as_ref().ok().map(|opened| &opened.limits));
        let outcome = opened.as_ref().map(|_| generation);
        let written = self.audit.write(entry, outcome.into());
        ((opened, generation), written)
    }

    async fn kernel_changed(&mut self, mut changed: Changed) {
        if changed.lost {
            self.netlink.restart().await;
            changed = Changed {
                neighbours: true,
                addresses: true,
                devices: true,
                lost: false,
            };
        }
        if changed.addresses || changed.devices {
            self.set_local_addresses();
        }
        if changed.devices {
            self.follow_devices(false);
        }
        if changed.neighbours || changed.addresses {
            self.republish();
        }
        if changed.devices {
            self.look_at_mtus();
        }
        self.update_health();
    }

    /// Closes ports whose device is gone, opens those whose device is back, and takes over what changed of the others.
    pub(super) fn follow_devices(&mut self, thorough: bool) {
        let devices = &mut self.netlink.view.devices;
        if self
            .ports
            .follow(&self.pool, &self.state, devices, thorough)
        {
            self.republish();
            // Told before a port is open again: that it was closed may have cost packets.
            self.update_health();
        }
        let devices = &self.netlink.view.devices;
        self.warnings.of_devices(self.ports.guarded(devices));
        let view = &self.netlink.view;
        if self.ports.reopen(&self.pool, &self.state, view, !thorough) {
            self.republish();
            self.look_at_mtus();
            self.update_health();
            self.resolver.links(&self.netlink, &self.sources());
        }
    }

    /// Publishes the same state with what is known of neighbours now.
    pub(super) fn republish(&mut self) {
        let down = self.members.down();
        let sources = sources(&self.state, &self.live, &self.ports, &self.netlink, down);
        match self.compiler.compile(self.publications + 1, &sources) {
            Ok(tables) => {
                self.publications += 1;
                self.pool.publish(tables);
            }
            // The workers go on with the tables that they have; the next ones are made from nothing.
            Err(missing) => tracing::error!(
                %missing,
                "the tables could not be made: this is a fault of the node, report it with the state (ctl get)"
            ),
        }
    }

    pub(super) fn set_local_addresses(&mut self) {
        let view = &self.netlink.view;
        self.ports
            .set_local_addresses(&self.state, view, &self.events);
    }

    fn housekeep(&mut self, now: Instant) {
        self.pool.reclaim();
        let down = self.members.down();
        let sources = sources(&self.state, &self.live, &self.ports, &self.netlink, down);
        let tables = self.compiler.tables();
        let thinned = self.resolver.tick(now, &self.netlink, tables, &sources);
        if let Some(thinned) = thinned {
            // In the same step: whom the kernel forgets is a new one to the port from now on.
            self.ports
                .share_neighbours(&self.netlink.view, &thinned, now);
        }
        for owner in self.waiting.over(since_boot()) {
            self.expired(&owner);
        }
        self.try_restore(now);
        self.try_rest(now);
        self.try_state_dir(now);
        self.watch_state_dir(now);
        self.tend_store(now);
    }

    /// Has those looked for whom packets wait for.
    fn ask_for_neighbours(&mut self) {
        let requests = self.pool.neighbour_requests().try_iter();
        let (tables, ports) = (self.compiler.tables(), self.ports.open());
        self.resolver
            .wanted(Instant::now(), &self.netlink, tables, ports, requests);
    }

    /// Keys that have come to a limit stop.
    fn watch_limits(&mut self, now: Duration) {
        let ends = self
            .watch
            .look(now, &self.state, &self.live, self.key_limits);
        for (id, end) in ends {
            let change = match end.reached {
                true => v1::KeyChange::Exhausted,
                false => v1::KeyChange::NearlyExhausted,
            };
            if end.reached {
                tracing::warn!(key = %id, limit = end.limit, "the key has come to its limit and is stopped");
            }
            self.health.limit(&self.events, &id, change, end.limit);
        }
    }

    /// Looks at what carries packets and what does not, and has groups go without the latter.
    pub(super) fn update_health(&mut self) {
        let known = Arc::clone(self.members.down());
        let (state, live) = (&self.state, &self.live);
        let sources = sources(state, live, &self.ports, &self.netlink, &known);
        self.warnings.update(&self.events, &sources);
        let view = &self.netlink.view;
        let circuits = self.health.update(&self.events, &sources, view);
        if self.members.look(&sources, view, &self.health, circuits) {
            self.republish();
        }
    }

    /// What tables are made from now.
    pub(super) fn sources(&self) -> Sources<'_> {
        let (state, live) = (&self.state, &self.live);
        sources(state, live, &self.ports, &self.netlink, self.members.down())
    }
}

/// A function of the fields, so that others may be borrowed meanwhile.
pub(super) fn sources<'a>(
    state: &'a State,
    live: &'a Live,
    ports: &'a Ports,
    netlink: &'a Netlink,
    down: &'a Arc<Down>,
) -> Sources<'a> {
    Sources {
        state,
        live,
        ports: ports.open(),
        neighbours: &netlink.view.neighbours,
        addresses: &netlink.view.addresses,
        down,
    }
}

/// How many packets were dropped for a reason.
fn dropped(drops: &[(&'static str, u64)], reason: DropReason) -> u64 {
    let found = drops.iter().find(|(name, _)| *name == reason.name());
    found.map_or(0, |(_, total)| *total)
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
