//! A lab leaves nothing behind, whatever happens to its process, and touches nothing that it did not make.

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{lab, net};
use rustix::mount::UnmountFlags;
use twinseal_lab::{Lab, LabError, VethConfig};

/// Set for the test program when it runs as the process that is to be killed.
const CHILD: &str = "TWINSEAL_LAB_TEST_CHILD";

fn netns(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn journal(id: &str) -> PathBuf {
    Path::new("/run/twinseal-lab").join(format!("{id}.journal"))
}

#[test]
fn a_dropped_lab_is_gone() {
    let Some(lab) = lab("tdrop") else { return };
    let a = lab.namespace("a").expect("namespace");
    let (id, directory) = (lab.id().to_owned(), lab.directory());
    assert!(journal(&id).exists() && directory.exists() && a.path().exists());
    drop(lab);
    assert!(!journal(&id).exists() && !directory.exists() && !a.path().exists());
}

#[test]
fn a_panic_takes_the_lab_down() {
    let Some(lab) = lab("tpanic") else { return };
    let (id, name) = (lab.id().to_owned(), format!("{}-a", lab.id()));
    let panicked = std::thread::spawn(move || {
        let _a = lab.namespace("a").expect("namespace");
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!netns(&name).exists() && !journal(&id).exists());
}

#[test]
fn two_labs_of_one_prefix_do_not_meet() {
    let Some(one) = lab("ttwo") else { return };
    let two = Lab::new("ttwo").expect("lab");
    assert_ne!(one.id(), two.id());
    let (a, b) = (
        one.namespace("a").expect("namespace"),
        two.namespace("a").expect("namespace"),
    );
    drop(one);
    assert!(!a.path().exists() && b.path().exists());
}

#[test]
fn a_kept_lab_stays_until_it_is_torn_down_by_name() {
    let Some(lab) = lab("tkeep") else { return };
    let a = lab.namespace("a").expect("namespace");
    let mut command = Command::new("sleep");
    command.arg("1000");
    let pid = a.spawn(command).expect("spawn").detach();
    assert!(matches!(
        Lab::teardown(lab.id()),
        Err(LabError::InUse { .. })
    ));
    let id = lab.keep().expect("keep");
    Lab::sweep().expect("sweep");
    assert!(a.path().exists() && alive(pid));
    Lab::teardown(&id).expect("teardown");
    assert!(!a.path().exists() && !alive(pid) && !journal(&id).exists());
    assert!(matches!(Lab::teardown(&id), Err(LabError::Missing { .. })));
}

#[test]
fn what_a_killed_process_leaves_is_swept_and_only_that() {
    if let Ok(ready) = std::env::var(CHILD) {
        be_killed(Path::new(&ready));
    }
    let Some(lab) = lab("tsweep") else { return };
    let ready = lab.directory().join("ready");
    let child = Command::new(std::env::current_exe().expect("own program"))
        .args([
            "--exact",
            "what_a_killed_process_leaves_is_swept_and_only_that",
            "--nocapture",
        ])
        .env(CHILD, &ready)
        .stdout(Stdio::null())
        .spawn()
        .expect("start this program again");
    let mut child = Killed(child);
    let told = wait_for_file(&ready);
    let mut words = told.split_whitespace();
    let mut next = || words.next().expect("three words").to_owned();
    let (id, name, grandchild) = (next(), next(), next());
    let grandchild = grandchild.parse().expect("a process id");

    // A namespace of a similar name, and one that took the place of the lab's own: both are someone else's.
    let mine = lab.namespace("mine").expect("namespace");
    let similar = Elsewhere::mount(mine.path(), netns(&format!("{id}-other")));
    let replaced = netns(&format!("{id}-b"));
    rustix::mount::unmount(&replaced, UnmountFlags::DETACH).expect("unmount");
    std::fs::remove_file(&replaced).expect("remove");
    let replaced = Elsewhere::mount(mine.path(), replaced);
    // Its owner lives, so it is not swept.
    assert!(!Lab::sweep().expect("sweep").contains(&id));
    assert!(netns(&name).exists() && alive(grandchild));

    child.0.kill().expect("kill");
    child.0.wait().expect("reap");
    // A lab that another test makes just now may be quicker, and still at it.
    Lab::sweep().expect("sweep");
    for _ in 0..200 {
        if !journal(&id).exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!netns(&name).exists() && !journal(&id).exists());
    assert!(!alive(grandchild));
    assert!(similar.survives() && replaced.survives());
}

/// A child that does not outlive a failed test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a lab with a process in it, tells of them and waits to be killed.
fn be_killed(ready: &Path) -> ! {
    let lab = Lab::new("tkilled").expect("lab");
    let a = lab.namespace("a").expect("namespace");
    let b = lab.namespace("b").expect("namespace");
    let veth = VethConfig::new((&a, "eth0"), (&b, "eth0"));
    lab.veth(&veth.addresses(&[net("10.0.0.1/24")], &[net("10.0.0.2/24")]))
        .expect("veth");
    let mut command = Command::new("sleep");
    command.arg("1000");
    let process = a.spawn(command).expect("spawn");
    let told = format!("{} {} {}", lab.id(), a.name(), process.id());
    let draft = ready.with_extension("draft");
    std::fs::write(&draft, told).expect("write");
    std::fs::rename(&draft, ready).expect("rename");
    loop {
        std::thread::park();
    }
}

fn wait_for_file(path: &Path) -> String {
    for _ in 0..1000 {
        if let Ok(text) = std::fs::read_to_string(path) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the other process did not begin in ten seconds");
}

/// A namespace under another name, as someone else's tool would mount it. Unmounted when dropped.
struct Elsewhere {
    path: PathBuf,
    inode: u64,
}

impl Elsewhere {
    fn mount(namespace: PathBuf, path: PathBuf) -> Self {
        std::fs::File::create_new(&path).expect("create");
        rustix::mount::mount_bind(&namespace, &path).expect("mount");
        let inode = std::fs::metadata(&path).expect("metadata").ino();
        Elsewhere { path, inode }
    }

    fn survives(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&self.path);
    }
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap_or(0)..].starts_with(") Z"))
}
