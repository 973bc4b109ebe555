//! The kernel view against a real kernel, each test in a network namespace of its own that ends with its thread.

use std::time::Duration;

use rtnetlink::{LinkUnspec, LinkVeth};
use tokio::time::timeout;
use twinseal_lab::Lab;

use super::*;
use crate::devices::Departure;

/// Runs a test on a thread in a new network namespace; says so loudly if there can be none.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if let Err(why) = Lab::available() {
        eprintln!("SKIPPED: no network namespace: {why}");
        return;
    }
    let lab = Lab::new("netlink").expect("a lab");
    let namespace = lab.namespace("n").expect("a namespace");
    let run = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        runtime.block_on(test());
    };
    namespace.run(run).expect("the test failed");
}

/// A pair of devices and their indices, both up.
async fn veth(handle: &Handle) -> Option<(u32, u32)> {
    let pair = LinkVeth::new("t0", "t1").build();
    if let Err(error) = handle.link().add(pair).execute().await {
        eprintln!("SKIPPED: no veth: {error}");
        return None;
    }
    let mut indices = Vec::new();
    for name in ["t0", "t1"] {
        let mut links = std::pin::pin!(handle.link().get().match_name(name).execute());
        let link = links
            .next()
            .await
            .expect("it was made")
            .expect("it is there");
        indices.push(link.header.index);
        set(handle, link.header.index, true).await;
    }
    Some((indices[0], indices[1]))
}

async fn set(handle: &Handle, index: u32, up: bool) {
    let link = LinkUnspec::new_with_index(index);
    let link = if up { link.up() } else { link.down() };
    handle
        .link()
        .set(link.build())
        .execute()
        .await
        .expect("it is ours");
}

/// Takes changes in until `done`.
async fn until(netlink: &mut Netlink, done: impl Fn(&View) -> bool) {
    let waited = timeout(Duration::from_secs(10), async {
        while !done(&netlink.view) {
            assert!(!netlink.changed().await.lost);
        }
    });
    waited.await.expect("the kernel tells of it");
}

fn carrier(view: &View, ifindex: u32) -> bool {
    let device = view.devices.get(ifindex);
    device.is_some_and(|device| device.carrier)
}

fn has(view: &View, ifindex: u32, address: IpAddr) -> bool {
    view.addresses_on(ifindex).any(|it| it == address)
}

fn handle_of(netlink: &Netlink) -> Handle {
    let connection = netlink.connection.as_ref().expect("it is connected");
    connection.handle.clone()
}

#[test]
fn what_the_kernel_tells_is_seen() {
    in_namespace(|| async {
        let mut netlink = Netlink::start().await;
        let handle = handle_of(&netlink);
        let Some((t0, t1)) = veth(&handle).await else {
            return;
        };
        until(&mut netlink, |view| carrier(view, t0)).await;
        assert_eq!(netlink.view.has_device("t1"), Some(true));
        assert_eq!(netlink.view.has_device("none"), Some(false));

        let ours: IpAddr = "192.0.2.1".parse().expect("an address");
        handle
            .address()
            .add(t0, ours, 24)
            .execute()
            .await
            .expect("it is free");
        until(&mut netlink, |view| has(view, t0, ours)).await;

        let peer: IpAddr = "192.0.2.2".parse().expect("an address");
        let mac = [2, 0, 0, 0, 0, 2];
        let neighbour = handle.neighbours().add(t0, peer).link_layer_address(&mac);
        neighbour.execute().await.expect("it is new");
        until(&mut netlink, |view| {
            view.neighbours.get(&(t0, peer)) == Some(&Mac(mac))
        })
        .await;

        // A new connection reads the same at once.
        let again = Netlink::start().await;
        assert_eq!(again.view.neighbours.get(&(t0, peer)), Some(&Mac(mac)));
        assert!(has(&again.view, t0, ours));
        assert!(carrier(&again.view, t0) && !carrier(&again.view, 99));

        set(&handle, t1, false).await;
        until(&mut netlink, |view| !carrier(view, t0)).await;
        handle
            .address()
            .del(only_address(&handle, t0).await)
            .execute()
            .await
            .expect("it is there");
        until(&mut netlink, |view| !has(view, t0, ours)).await;
        handle.link().del(t0).execute().await.expect("it is ours");
        until(&mut netlink, |view| {
            view.has_device("t0") != Some(true) && !view.neighbours.contains_key(&(t0, peer))
        })
        .await;
        let departed = netlink.view.devices.departed();
        assert_eq!(departed.get(&t0), Some(&Departure::Deleted));
    });
}

async fn only_address(handle: &Handle, index: u32) -> AddressMessage {
    let get = handle.address().get().set_link_index_filter(index);
    let mut addresses = std::pin::pin!(get.execute());
    while let Some(Ok(address)) = addresses.next().await {
        let is_v4 = |it: &AddressAttribute| matches!(it, AddressAttribute::Local(IpAddr::V4(_)));
        if address.attributes.iter().any(is_v4) {
            return address;
        }
    }
    panic!("it has no address");
}

#[test]
fn the_kernel_resolves_what_it_is_asked_for() {
    in_namespace(|| async {
        let mut netlink = Netlink::start().await;
        let handle = handle_of(&netlink);
        let Some((t0, _)) = veth(&handle).await else {
            return;
        };
        // Nobody answers: this tells only that the kernel begins to ask.
        let (ours, peer) = ("192.0.2.1", "192.0.2.2");
        let (ours, peer): (IpAddr, IpAddr) = (ours.parse().expect("v4"), peer.parse().expect("v4"));
        handle
            .address()
            .add(t0, ours, 24)
            .execute()
            .await
            .expect("it is free");
        until(&mut netlink, |view| has(view, t0, ours)).await;
        assert!(!netlink.view.neighbours.contains_key(&(t0, peer)));
        netlink.resolve(t0, peer);
        let asked = timeout(Duration::from_secs(10), async {
            loop {
                let mut neighbours = std::pin::pin!(handle.neighbours().get().execute());
                while let Some(Ok(neighbour)) = neighbours.next().await {
                    let of_ours = neighbour.header.ifindex == t0
                        && neighbour
                            .attributes
                            .contains(&NeighbourAttribute::Destination(peer.into()));
                    if of_ours {
                        return neighbour.header.state;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let state = asked.await.expect("the kernel makes an entry");
        assert_eq!(state, NeighbourState::Incomplete, "it is asking");
        assert!(
            !netlink.view.neighbours.contains_key(&(t0, peer)),
            "and not usable"
        );
    });
}

#[test]
fn addresses_have_the_standing_that_their_flags_say() {
    use AddressFlags as Flags;
    for (flags, expected) in [
        (Flags::Permanent, Standing::Preferred),
        (Flags::Permanent | Flags::Secondary, Standing::Preferred),
        (Flags::Tentative, Standing::Tentative),
        (Flags::Tentative | Flags::Optimistic, Standing::Preferred),
        (Flags::Tentative | Flags::Dadfailed, Standing::Duplicate),
        (Flags::Deprecated, Standing::Deprecated),
    ] {
        assert_eq!(standing(flags), expected, "{flags:?}");
    }
}

#[test]
fn a_neighbour_that_is_probed_and_does_not_answer_vanishes_and_can_be_forgotten() {
    in_namespace(|| async {
        let mut netlink = Netlink::start().await;
        let handle = handle_of(&netlink);
        let Some((t0, _)) = veth(&handle).await else {
            return;
        };
        let (ours, peer) = ("192.0.2.1", "192.0.2.2");
        let (ours, peer): (IpAddr, IpAddr) = (ours.parse().expect("v4"), peer.parse().expect("v4"));
        let address = handle.address().add(t0, ours, 24);
        address.execute().await.expect("it is free");
        // Left alone it would stay for good.
        let stale = handle.neighbours().add(t0, peer);
        let stale = stale.link_layer_address(&[2, 0, 0, 0, 0, 9]);
        let stale = stale.state(NeighbourState::Stale);
        stale.execute().await.expect("it is ours");
        let known = |view: &View| view.neighbours.contains_key(&(t0, peer));
        until(&mut netlink, known).await;
        assert!(netlink.view.vanished.is_empty());
        netlink.probe(t0, peer);
        until(&mut netlink, |view| view.vanished == [(t0, peer)]).await;
        assert!(!known(&netlink.view));

        assert!(in_table(&handle, t0, peer).await, "as failed");
        netlink.forget(t0, peer);
        let gone = timeout(Duration::from_secs(10), async {
            while in_table(&handle, t0, peer).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        gone.await.expect("it is forgotten");
        // Who is not there is not made by a probe.
        netlink.probe(t0, peer);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!in_table(&handle, t0, peer).await);
    });
}

async fn in_table(handle: &Handle, device: u32, address: IpAddr) -> bool {
    let mut neighbours = std::pin::pin!(handle.neighbours().get().execute());
    let wanted = NeighbourAttribute::Destination(address.into());
    while let Some(Ok(it)) = neighbours.next().await {
        if it.header.ifindex == device && it.attributes.contains(&wanted) {
            return true;
        }
    }
    false
}
