//! From the text to changes of a transaction. What is missing or makes no sense is the node's to refuse; only what the
//! protocol cannot express is refused here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twinseal_api::v1;
use v1::item::Item;

use super::fields::{Fields, Mistakes};
use super::schema::{
    BindMode, Checksum, Direction, Dscp, End, INSTALLED, NEEDED, PortRole, Suite, XdpMode,
};
use super::yaml::{At, Broken, Next, Node, Value, Yaml};
use super::{Origin, Place, StateFile};
use crate::config::Mistake;
use crate::control::parse::ItemKey;
use crate::private;

/// The sections of a file, in the order in which they are applied.
const SECTIONS: [&str; 11] = [
    "ports",
    "vrfs",
    "links",
    "circuits",
    "labels",
    "groups",
    "routes",
    "neighbours",
    "keys",
    "transmit",
    DELETE,
];
const DELETE: &str = "delete";
/// In what `ctl get -o yaml` prints, the state among what became of it.
const STATE: &str = "state";

/// What was seen of keys' secrets.
#[derive(Default)]
struct Secrets {
    /// Keys that the node must have.
    installed: usize,
    /// Some are written in the text itself.
    written: bool,
}

pub(super) fn read(path: &Path, origin: Origin, text: &str) -> Result<StateFile, Vec<Mistake>> {
    let mut reader = Reader {
        path,
        origin,
        mistakes: Mistakes::new(path),
        sections: Default::default(),
        secrets: Secrets::default(),
    };
    let mut at = "";
    if let Err(broken) = reader.document(text, &mut at) {
        reader.mistakes.broken(broken, at);
    }
    let Reader {
        mut mistakes,
        sections,
        secrets,
        ..
    } = reader;
    let (mut changes, mut places) = (Vec::new(), Vec::new());
    for (change, place) in sections.into_iter().flatten() {
        changes.push(change);
        places.push(place);
    }
    named_once(&changes, &places, &mut mistakes);
    if !mistakes.all.is_empty() {
        mistakes.all.sort_by_key(|it| (it.line, it.column));
        return Err(mistakes.all);
    }
    Ok(StateFile {
        changes,
        installed: secrets.installed,
        holds_secrets: secrets.written,
        path: path.to_owned(),
        places,
    })
}

/// What is set and deleted, or set twice, is not told which of the two is meant.
fn named_once(changes: &[v1::Change], places: &[Place], mistakes: &mut Mistakes<'_>) {
    let mut named: HashMap<ItemKey, &Place> = HashMap::with_capacity(changes.len());
    for (change, place) in changes.iter().zip(places) {
        // A name that makes no sense is the node's to refuse.
        let Some(key) = ItemKey::of_change(change) else {
            continue;
        };
        let what = key.to_string();
        match named.entry(key) {
            Entry::Vacant(entry) => _ = entry.insert(place),
            Entry::Occupied(entry) => {
                let first = entry.get();
                let reason = format!(
                    "{what} is named in line {} already, by {}",
                    first.at.line,
                    first.entry()
                );
                let fix = match (first.section == DELETE) == (place.section == DELETE) {
                    true => "keep one of them",
                    false => {
                        "keep one of them; to make it anew, delete it in a file of its own first"
                    }
                };
                mistakes.add(place.at, &place.entry(), reason, fix);
            }
        }
    }
}

struct Reader<'p> {
    path: &'p Path,
    origin: Origin,
    mistakes: Mistakes<'p>,
    /// What each section changes.
    sections: [Vec<(v1::Change, Place)>; SECTIONS.len()],
    secrets: Secrets,
}

impl Reader<'_> {
    fn document(&mut self, text: &str, section: &mut &'static str) -> Result<(), Broken> {
        let mut yaml = Yaml::new(text);
        match yaml.next()? {
            (_, Next::Over) => return Ok(()),
            (_, Next::Map) if text.contains(STATE) && has_state(text) => {
                self.printed(&mut yaml, section)?;
            }
            (_, Next::Map) => self.sections(&mut yaml, section)?,
            (_, Next::Node(node)) if node.is_null() => {}
            (at, next) => {
                yaml.rest(at, next)?;
                let fix = "write sections such as `ports:`, each with a list";
                self.mistakes.add(at, "", "there are no sections", fix);
            }
        }
        *section = "";
        // The end of the document, and what is behind it.
        yaml.next()?;
        if let Some(at) = yaml.more()? {
            let fix = "apply each from a file of its own";
            self.mistakes.add(at, "", "a second document begins", fix);
        }
        Ok(())
    }

    /// Takes the state, and leaves what became of it.
    fn printed(&mut self, yaml: &mut Yaml<'_>, section: &mut &'static str) -> Result<(), Broken> {
        while let Some((at, name)) = name(yaml)? {
            let (value_at, value) = yaml.next()?;
            match value {
                Next::Map if name == STATE => self.sections(yaml, section)?,
                value => {
                    let node = yaml.rest(value_at, value)?;
                    if name == STATE && !node.is_null() {
                        let fix = "write sections such as `ports:`, each with a list";
                        self.mistakes.add(at, STATE, "it has no sections", fix);
                    }
                }
            }
        }
        Ok(())
    }

    fn sections(&mut self, yaml: &mut Yaml<'_>, section: &mut &'static str) -> Result<(), Broken> {
        let mut seen = [false; SECTIONS.len()];
        while let Some((at, name)) = name(yaml)? {
            let Some(n) = SECTIONS.iter().position(|section| *section == name) else {
                let reason = format!("unknown field; there are {}", SECTIONS.join(", "));
                let fix = "correct its name or remove it";
                self.mistakes.add(at, &name, reason, fix);
                let (at, value) = yaml.next()?;
                yaml.rest(at, value)?;
                continue;
            };
            *section = SECTIONS[n];
            if std::mem::replace(&mut seen[n], true) {
                let fix = "keep one of them";
                self.mistakes.add(at, SECTIONS[n], "it is a duplicate", fix);
            }
            self.section(yaml, n)?;
        }
        Ok(())
    }

    fn section(&mut self, yaml: &mut Yaml<'_>, n: usize) -> Result<(), Broken> {
        match yaml.next()? {
            (_, Next::List) => {
                for index in 0.. {
                    let (at, next) = yaml.next()?;
                    if matches!(next, Next::End) {
                        break;
                    }
                    let node = yaml.rest(at, next)?;
                    self.one(n, index, node);
                }
            }
            (_, Next::Node(node)) if node.is_null() => {}
            (at, next) => match yaml.rest(at, next)?.value {
                // One with an anchor comes whole.
                Value::List(nodes) => {
                    for (index, node) in nodes.into_iter().enumerate() {
                        self.one(n, index, node);
                    }
                }
                _ => {
                    let fix = "write a value of that kind";
                    self.mistakes.add(at, SECTIONS[n], "it is no list", fix);
                }
            },
        }
        Ok(())
    }

    /// One entry of a section.
    fn one(&mut self, n: usize, index: usize, node: Node<'_>) {
        let (at, section) = (node.at, SECTIONS[n]);
        let change = match section {
            DELETE => self.mistakes.entry(node, "", delete).flatten(),
            "keys" => {
                let Self {
                    path,
                    origin,
                    secrets,
                    ..
                } = self;
                let read = |f: &mut Fields<'_, '_, '_>| key(f, path, *origin, secrets);
                let key = self.mistakes.entry(node, "", read).flatten();
                key.map(|key| set(Item::Key(key)))
            }
            _ => self.mistakes.entry(node, "", |f| item(section, f)).map(set),
        };
        if let Some(change) = change {
            let change = v1::Change {
                change: Some(change),
            };
            let place = Place { at, section, index };
            self.sections[n].push((change, place));
        }
    }
}

/// Whether the text is what `ctl get` prints for programs.
fn has_state(text: &str) -> bool {
    let mut yaml = Yaml::new(text);
    if !matches!(yaml.next(), Ok((_, Next::Map))) {
        return false;
    }
    while let Ok(Some((_, name))) = name(&mut yaml) {
        if name == STATE {
            return true;
        }
        let skipped = yaml.next().and_then(|(at, next)| yaml.rest(at, next));
        if skipped.is_err() {
            break;
        }
    }
    false
}

/// The next field of a map that was begun; `None` at its end.
fn name(yaml: &mut Yaml<'_>) -> Result<Option<(At, String)>, Broken> {
    match yaml.next()? {
        (_, Next::End | Next::Over) => Ok(None),
        (at, Next::Node(node)) => match node.value {
            Value::Scalar { text, .. } => Ok(Some((at, text.into_owned()))),
            _ => Err(no_name(at)),
        },
        (at, _) => Err(no_name(at)),
    }
}

fn no_name(at: At) -> Broken {
    let reason = "a list or a map is no name of a section".to_owned();
    Broken { at, reason }
}

fn set(item: Item) -> v1::change::Change {
    v1::change::Change::Set(v1::Item { item: Some(item) })
}

fn item(section: &str, f: &mut Fields<'_, '_, '_>) -> Item {
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

fn key(
    f: &mut Fields<'_, '_, '_>,
    path: &Path,
    origin: Origin,
    secrets: &mut Secrets,
) -> Option<v1::Key> {
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
            return Some(v1::Key {
                needed: *text == NEEDED,
                ..key
            });
        }
        (Some(text), None) => {
            secrets.written = true;
            decode(f, "secret", text.as_bytes())
        }
        (None, Some(_)) if origin == Origin::Store => {
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
                    f.wrong(at, "secret_file", error.to_string(), fix);
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
    let secret = secret?;
    Some(v1::Key { secret, ..key })
}

fn decode(f: &mut Fields<'_, '_, '_>, field: &str, text: &[u8]) -> Option<Vec<u8>> {
    let secret = STANDARD.decode(text.trim_ascii());
    if secret.is_err() {
        // The decoder's own message would show a part of the secret.
        let fix = "write the output of `twinseal genkey`: 32 bytes, 44 characters";
        f.wrong(f.at, field, "the secret is not base64", fix);
    }
    secret.ok()
}

fn delete(f: &mut Fields<'_, '_, '_>) -> Option<v1::change::Change> {
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
