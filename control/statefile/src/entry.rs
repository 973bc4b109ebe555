//! From the fields of an entry to an item of the protocol.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twinseal_api::v1;
use twinseal_crypto::SECRET_LEN;
use v1::item::Item;

use super::Origin;
use super::fields::Fields;
use super::schema::{
    BindMode, Checksum, Direction, Dscp, End, INSTALLED, NEEDED, PortRole, Suite, XdpMode,
};
use twinseal_base::private;
use twinseal_base::private::PrivateError;

/// What was seen of keys' secrets.
#[derive(Default)]
pub(super) struct Secrets {
    /// Keys that the node must have.
    pub(super) installed: usize,
    /// Some are written in the text itself.
    pub(super) written: bool,
}

/// An item of any section but that of keys.
pub(super) fn item(section: &str, f: &mut Fields<'_, '_, '_>) -> Item {
    match section {
        "ports" => Item::Port(port(f)),
        "vrfs" => Item::Vrf(v1::Vrf {
            name: f.needed("name"),
        }),
        "links" => Item::Link(v1::Link {
            name: f.needed("name"),
            end: f.word::<End>("end"),
            port: f.text("port"),
            local: f.text("local"),
            remote: f.text("remote"),
            local_port: f.number("local_port"),
            remote_port: f.number("remote_port"),
            next_hop: f.text("next_hop"),
        }),
        "circuits" => Item::Circuit(v1::Circuit {
            name: f.needed("name"),
            id: f.number("id"),
            end: f.word::<End>("end"),
            vrf: f.text("vrf"),
            link: f.text("link"),
            label: f.number("label"),
            hop_limit: f.number("hop_limit"),
            dscp: f.word::<Dscp>("dscp"),
            dscp_value: f.number("dscp_value"),
            tags: f.texts("tags").into_iter().collect(),
        }),
        "labels" => Item::Label(label(f)),
        "groups" => Item::Group(v1::Group {
            name: f.needed("name"),
            members: f.list("members", member),
        }),
        "routes" => Item::Route(route(f)),
        "neighbours" => Item::Neighbour(v1::Neighbour {
            port: f.needed("port"),
            address: f.needed("address"),
            mac: f.text("mac"),
        }),
        _ => Item::Transmit(transmit(f)),
    }
}

fn port(f: &mut Fields<'_, '_, '_>) -> v1::Port {
    use v1::port::Device;
    let af_xdp = f.map("af_xdp", |f| {
        Device::AfXdp(v1::AfXdp {
            netdev: f.needed("netdev"),
            bind: f.word::<BindMode>("bind"),
            xdp: f.word::<XdpMode>("xdp"),
            busy_poll: f.flag("busy_poll"),
            owned: f.flag("owned"),
        })
    });
    let tap = f.map("tap", |f| {
        Device::Tap(v1::Tap {
            netdev: f.needed("netdev"),
        })
    });
    let memory = f.map("memory", |f| {
        Device::Memory(v1::Memory {
            wire: f.needed("wire"),
            mac: f.text("mac"),
        })
    });
    v1::Port {
        name: f.needed("name"),
        role: f.word::<PortRole>("role"),
        vrf: f.text("vrf"),
        mtu: f.number("mtu"),
        checksum: f.word::<Checksum>("checksum"),
        local: f.texts_of("local"),
        device: f.one_of("af_xdp, tap, memory", [af_xdp, tap, memory]),
    }
}

fn label(f: &mut Fields<'_, '_, '_>) -> v1::Label {
    use v1::label::Action;
    let swap = f.map("swap", |f| {
        Action::Swap(v1::Swap {
            link: f.needed("link"),
            label: f.needed_number("label"),
        })
    });
    let egress = f.map("egress", |f| {
        Action::Egress(v1::Egress {
            circuit: f.needed("circuit"),
        })
    });
    v1::Label {
        link: f.needed("link"),
        label: f.needed_number("label"),
        action: f.one_of("swap, egress", [swap, egress]),
    }
}

fn via(f: &mut Fields<'_, '_, '_>) -> v1::Via {
    v1::Via {
        port: f.needed("port"),
        address: f.text("address"),
    }
}

fn member(f: &mut Fields<'_, '_, '_>) -> v1::Member {
    use v1::member::Target;
    let circuit = f.maybe("circuit").map(Target::Circuit);
    let via = f.map("via", via).map(Target::Via);
    v1::Member {
        target: f.one_of("circuit, via", [circuit, via]),
        weight: f.maybe_number("weight"),
    }
}

fn route(f: &mut Fields<'_, '_, '_>) -> v1::Route {
    use v1::route::Target;
    let targets = [
        f.maybe("circuit").map(Target::Circuit),
        f.maybe("group").map(Target::Group),
        f.map("via", via).map(Target::Via),
        f.map("blackhole", |_| Target::Blackhole(v1::Blackhole {})),
    ];
    v1::Route {
        vrf: f.needed("vrf"),
        prefix: f.needed("prefix"),
        target: f.one_of("circuit, group, via, blackhole", targets),
    }
}

fn transmit(f: &mut Fields<'_, '_, '_>) -> v1::Transmit {
    use v1::transmit::Owner;
    let owners = [
        f.maybe("link").map(Owner::Link),
        f.maybe("circuit").map(Owner::Circuit),
    ];
    v1::Transmit {
        owner: f.one_of("link, circuit", owners),
        epoch: f.needed_number("epoch"),
    }
}

pub(super) fn key(
    f: &mut Fields<'_, '_, '_>,
    path: &Path,
    origin: Origin,
    secrets: &mut Secrets,
) -> v1::Key {
    use v1::key::Owner;
    let owners = [
        f.maybe("link").map(Owner::Link),
        f.maybe("circuit").map(Owner::Circuit),
    ];
    let owner = f.one_of("link, circuit", owners);
    let key = v1::Key {
        owner,
        direction: f.word::<Direction>("direction"),
        epoch: f.needed_number("epoch"),
        suite: f.word::<Suite>("suite"),
        receiver_index: f.number("receiver_index"),
        limits: f.map("limits", |f| v1::KeyLimits {
            packets: f.number("packets"),
            bytes: f.number("bytes"),
            seconds: f.number("seconds"),
        }),
        ..Default::default()
    };
    let (text, file) = (f.secret("secret"), f.maybe("secret_file"));
    let at = f.at;
    let secret = match (text, file) {
        (Some(text), None) if [INSTALLED, NEEDED].contains(&text.as_str()) => {
            secrets.installed += 1;
            return v1::Key {
                needed: *text == NEEDED,
                ..key
            };
        }
        (Some(text), None) => {
            secrets.written = true;
            decode(f, "secret", text.as_bytes())
        }
        (None, Some(_)) if origin != Origin::File => {
            let fix = "write the secret itself: files of this machine are not for whoever writes the store";
            f.wrong(at, "secret_file", "it is not taken from a store", fix);
            None
        }
        (None, Some(file)) => {
            let file = path.parent().unwrap_or(Path::new("")).join(file);
            match private::read(&file) {
                Ok(text) => decode(f, "secret_file", &text),
                Err(error) => {
                    let fix = "name a file made by `twinseal genkey`";
                    let reason = match error {
                        // What names no file may be the secret itself, in the wrong place.
                        PrivateError::Read { source, .. } => {
                            format!("the file cannot be read: {source}")
                        }
                        error @ PrivateError::Open { .. } => error.to_string(),
                    };
                    f.wrong(at, "secret_file", reason, fix);
                    None
                }
            }
        }
        (Some(_), Some(_)) => {
            let fix = "keep one of them";
            f.wrong(at, "secret, secret_file", "both are given", fix);
            None
        }
        (None, None) => {
            let fix = "write the output of `twinseal genkey`, name its file in secret_file, or write `installed` \
                       for a key that the node has already";
            f.wrong(at, "secret", "the key has none", fix);
            None
        }
    };
    // With none the file is refused; what else is wrong with the key is told as well.
    let secret = secret.unwrap_or_default();
    v1::Key { secret, ..key }
}

fn decode(f: &mut Fields<'_, '_, '_>, field: &str, text: &[u8]) -> Option<Vec<u8>> {
    let secret = STANDARD.decode(text.trim_ascii());
    if secret.is_err() {
        // The decoder's own message would show a part of the secret.
        let fix = "write the output of `twinseal genkey`: 32 bytes, 44 characters";
        f.wrong(f.at, field, "the secret is not base64", fix);
    }
    secret.ok().inspect(|secret| match secret.len() {
        0 | SECRET_LEN => {}
        len => {
            let fix = "write the output of `twinseal genkey`";
            f.wrong(
                f.at,
                field,
                format!("it has {len} bytes, not {SECRET_LEN}"),
                fix,
            );
        }
    })
}

pub(super) fn delete(f: &mut Fields<'_, '_, '_>) -> Option<v1::change::Change> {
    use v1::item_ref::Item;
    let given = f.given();
    let label = f.map("label", |f| v1::LabelRef {
        link: f.needed("link"),
        label: f.needed_number("label"),
    });
    let route = f.map("route", |f| v1::RouteRef {
        vrf: f.needed("vrf"),
        prefix: f.needed("prefix"),
    });
    let neighbour = f.map("neighbour", |f| v1::NeighbourRef {
        port: f.needed("port"),
        address: f.needed("address"),
    });
    let key = f.map("key", |f| {
        use v1::key_ref::Owner;
        let owners = [
            f.maybe("link").map(Owner::Link),
            f.maybe("circuit").map(Owner::Circuit),
        ];
        v1::KeyRef {
            owner: f.one_of("link, circuit", owners),
            direction: f.word::<Direction>("direction"),
            epoch: f.needed_number("epoch"),
        }
    });
    let transmit = f.map("transmit", |f| {
        use v1::transmit_ref::Owner;
        let owners = [
            f.maybe("link").map(Owner::Link),
            f.maybe("circuit").map(Owner::Circuit),
        ];
        v1::TransmitRef {
            owner: f.one_of("link, circuit", owners),
        }
    });
    let items = [
        f.maybe("port").map(Item::Port),
        f.maybe("vrf").map(Item::Vrf),
        f.maybe("link").map(Item::Link),
        f.maybe("circuit").map(Item::Circuit),
        f.maybe("group").map(Item::Group),
        label.map(Item::Label),
        route.map(Item::Route),
        neighbour.map(Item::Neighbour),
        key.map(Item::Key),
        transmit.map(Item::Transmit),
    ];
    let item = f.one_of("delete", items);
    if item.is_none() && given == 0 {
        f.wrong(
            f.at,
            "delete",
            "it names nothing",
            "name one item, as in `port: NAME`",
        );
    }
    item.map(|item| v1::change::Change::Delete(v1::ItemRef { item: Some(item) }))
}
