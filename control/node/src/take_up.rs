//! The node's side of the [state directory](crate::state_dir): taken up at the start, or as soon as it is there.

use std::time::{Duration, Instant};

use crate::burned::{Burned, Found};
use crate::events::FaultKind;
use crate::node::Node;
use crate::state_dir;
use crate::state_dir::{StateDir, StateDirError};

/// A state directory that is not there is looked for again after this.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the files of one that is used are still there.
const LOOK: Duration = Duration::from_secs(2);

impl Node {
    /// Uses a state directory from now on, and restores what it has.
    pub fn take_up(&mut self, dir: StateDir) {
        let StateDir {
            lock,
            burned,
            store,
            tables,
            waiting,
            damage,
            usage,
            drains,
            drains_damage,
        } = dir;
        self.state_dir = Some(lock);
        self.look_again = None;
        self.burned = burned;
        if let Some(why) = self.burned.refuses() {
            self.tell_refuses(why);
        }
        self.accounts.keep_in(usage);
        drains.tell(&self.events);
        self.drains = drains;
        if let Some(damage) = drains_damage {
            tracing::error!("{damage}");
            self.events.fault(FaultKind::DrainsDamaged, damage);
        }
        self.store = store;
        self.restore(tables, waiting, damage);
    }

    /// Goes without one, and takes no secrets.
    pub fn without_state_dir(&mut self, error: &StateDirError) {
        let before = self.burned.refuses();
        self.burned = Burned::none(error);
        let why = self.burned.refuses();
        if let Some(why) =
            why.filter(|why| self.look_again.is_none() || before.as_ref() != Some(why))
        {
            self.tell_refuses(why);
        }
        self.look_again = Some(Instant::now() + RETRY);
    }

    /// Looks whether somebody has taken away or cut files while the node runs, if it is time.
    pub(super) fn watch_state_dir(&mut self, now: Instant) {
        if let Some(store) = &self.store {
            for lost in store.take_lost() {
                self.events.fault(FaultKind::StateFilesLost, lost);
            }
        }
        if self.state_dir.is_none() || now < self.look_at_files {
            return;
        }
        self.look_at_files = now + LOOK;
        self.watch_next_start();
        let Found { refuses, lost } = self.burned.look();
        if let Some(lost) = lost {
            tracing::error!("{lost}");
            self.events.fault(FaultKind::StateFilesLost, lost);
        }
        if let Some(why) = refuses {
            self.tell_refuses(why);
        }
    }

    /// Tells what the next start would not take, when it begins and when it is over; Get has it meanwhile.
    fn watch_next_start(&mut self) {
        let found = state_dir::look(&self.wanted.path);
        if found == self.state_dir_changed {
            return;
        }
        if let Some(over) = std::mem::replace(&mut self.state_dir_changed, found) {
            tracing::info!("the state directory is mended: this is over: {over}");
            self.events.fault(FaultKind::WarningOver, over);
        }
        if let Some(changed) = &self.state_dir_changed {
            tracing::error!("{changed}");
            self.events
                .fault(FaultKind::StateFilesLost, changed.clone());
        }
    }

    fn tell_refuses(&self, why: String) {
        tracing::error!("secrets are refused: {why}");
        self.events.fault(FaultKind::SecretsRefused, why);
    }

    /// Looks whether there is one by now, if it is time.
    pub(super) fn try_state_dir(&mut self, now: Instant) {
        if self.look_again.is_none_or(|again| now < again) || !self.waiting.is_empty() {
            return;
        }
        match StateDir::open(&self.wanted) {
            // What it has must not take the place of what came meanwhile, nor the other way round.
            Ok(dir) if dir.tables.is_none() || self.state.generation == 0 => {
                tracing::info!(path = %self.wanted.path.display(), "the state directory is there and is used from now on");
                self.take_up(dir);
            }
            Ok(_) => {
                self.without_state_dir(&StateDirError::Late {
                    path: self.wanted.path.clone(),
                });
                self.look_again = None;
            }
            Err(error) => self.without_state_dir(&error),
        }
    }
}
