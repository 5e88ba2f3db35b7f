//! A directory of policy files to one policy set: all of it, or all that is wrong with it.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_ike::config::{
    Action, Identity, PeerConfig, PeerName, PolicySet, Pool, RemoteAuth, Rule, RuleName, User,
    UserName,
};
use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::document::{Section, Source, Table, already_defined, wrong_type};
use super::error::{Fault, Place, PolicyError, nearest};
use super::keys::{self, Key};
use super::overlap::{self, Placed};
use super::peer::FoundPool;
use super::rule::Found;
use super::settings::{self, Settings};
use super::{eap, peer, pool, rule, secret, value};

/// The most octets in a policy file: enough for a hundred thousand rules.
const FILE_LIMIT: usize = 32 << 20;

/// The most peers among which the nearest to an unknown name is sought.
const SUGGESTIBLE: usize = 1000;

/// What a directory of policy files says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings of `[gateway]`, or their defaults.
    pub settings: Settings,
    /// Peers, users and rules.
    pub policies: PolicySet,
    /// What is allowed but hardly meant, in the order of the files.
    pub warnings: Vec<PolicyError>,
    /// How many files there were.
    pub files: usize,
    directory: PathBuf,
    metrics_place: Option<Place>,
    rule_places: BTreeMap<RuleName, Place>,
}

impl Loaded {
    /// An error about a rule, at its place, or about the directory as a whole: for whoever can
    /// judge better than this module.
    #[must_use]
    pub fn error(&self, rule: Option<&RuleName>, message: &str, hint: &str) -> PolicyError {
        let fault = Fault::new(message).hint(hint);
        match rule.and_then(|name| Some((name, self.rule_places.get(name)?))) {
            Some((name, place)) => PolicyError::at(place, Some(format!("rule.{name}")), fault),
            None => PolicyError::of_file(&self.directory, fault),
        }
    }

    /// An error about `metrics-listen`, likewise.
    #[must_use]
    pub fn metrics_error(&self, message: String, hint: &str) -> PolicyError {
        let fault = Fault::new(message).hint(hint);
        match &self.metrics_place {
            Some(place) => PolicyError::at(place, Some("gateway.metrics-listen".to_owned()), fault),
            None => PolicyError::of_file(&self.directory, fault),
        }
    }
}

/// Loads `DIR/*.toml` in the order of the names, and the secrets that they refer to. Names that
/// begin with a dot are skipped. Nothing else is touched or asked.
///
/// This blocks: an asynchronous caller runs it on a thread of its own.
///
/// # Errors
/// Everything that is wrong in any file, sorted by file and line. Where a file cannot be parsed,
/// what depends on its content is not judged.
pub fn load(dir: &Path) -> Result<Loaded, Vec<PolicyError>> {
    let paths = list(dir).map_err(|error| vec![PolicyError::of_file(dir, unreadable(&error))])?;
    let mut loader = Loader::default();
    let sources: Vec<_> = paths.iter().filter_map(|path| loader.read(path)).collect();
    let documents: Vec<_> = sources.iter().filter_map(|source| loader.parse(source)).collect();
    for (source, table) in &documents {
        loader.pools(source, table);
    }
    for (source, table) in &documents {
        loader.file(source, table);
    }
    for (source, table) in &documents {
        loader.rules(source, table);
    }
    loader.finish(dir, paths.len())
}

/// The policy files of a directory.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let octets = name.as_encoded_bytes();
        if octets.ends_with(b".toml") && !octets.starts_with(b".") {
            paths.push(dir.join(name));
        }
    }
    paths.sort();
    Ok(paths)
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::new(format!("cannot read: {error}"))
}

/// A peer and where its name stands; without a configuration if that is wrong.
#[derive(Debug)]
struct PlacedPeer {
    config: Option<Arc<PeerConfig>>,
    place: Place,
}

/// A pool, likewise.
#[derive(Debug)]
struct PlacedPool {
    pool: Option<Arc<Pool>>,
    place: Place,
}

#[derive(Debug, Default)]
struct Loader {
    errors: Vec<PolicyError>,
    warnings: Vec<PolicyError>,
    /// Whether a file is missing from the picture, so that a name nobody defines may be its.
    incomplete: bool,
    settings: Option<(Settings, Place)>,
    metrics_place: Option<Place>,
    pools: BTreeMap<String, PlacedPool>,
    peers: BTreeMap<PeerName, PlacedPeer>,
    users: BTreeMap<UserName, (Option<Arc<User>>, Place)>,
    rule_places: BTreeMap<RuleName, Place>,
    rules: Vec<Placed>,
}

impl Loader {
    fn read(&mut self, path: &Path) -> Option<Source> {
        let octets = secret::open(path).and_then(|file| secret::read(file, FILE_LIMIT));
        let source = match octets {
            Ok(Some(octets)) => Source::new(path, octets),
            Ok(None) => {
                let fault =
                    Fault::expected("too long", format_args!("at most {FILE_LIMIT} octets"));
                Err(PolicyError::of_file(path, fault))
            }
            Err(error) => Err(PolicyError::of_file(path, unreadable(&error))),
        };
        source.map_err(|error| self.lost([error])).ok()
    }

    fn parse<'s>(&mut self, source: &'s Source) -> Option<(&'s Source, Table<'s>)> {
        let table = source.parse().map_err(|errors| self.lost(errors)).ok()?;
        Some((source, table))
    }

    fn lost(&mut self, errors: impl IntoIterator<Item = PolicyError>) {
        self.errors.extend(errors);
        self.incomplete = true;
    }

    /// Reads the pools of a file.
    fn pools(&mut self, source: &Source, table: &Table<'_>) {
        for (key, value) in named(source, table, "pool", &mut self.errors) {
            let place = source.place(&key.span());
            let name = key.get_ref().as_ref().to_owned();
            let earlier = self.pools.get(&name).map(|pool| pool.place.clone());
            let mut pool = None;
            if let Some(mut section) =
                section(source, "pool", (key, value), keys::POOL, &mut self.errors)
            {
                defined_once(&mut section, earlier.as_ref());
                pool = pool::read(&mut section, &name).map(Arc::new);
            }
            if earlier.is_none() {
                let _new = self.pools.insert(name, PlacedPool { pool, place });
            }
        }
    }

    /// Reads the settings and peers of a file, and checks what tables it has.
    fn file(&mut self, source: &Source, table: &Table<'_>) {
        drop(Section::new(source, String::new(), 0..0, table, keys::FILE, &mut self.errors));
        if let Some((key, value)) = table.get_key_value("gateway") {
            self.gateway(source, key, value);
        }
        let (pools, incomplete) = (&self.pools, self.incomplete);
        let find = |name: &str| match pools.get(name) {
            Some(PlacedPool { pool: Some(pool), .. }) => FoundPool::Pool(pool),
            Some(PlacedPool { pool: None, .. }) => FoundPool::Unclear,
            None if incomplete => FoundPool::Unclear,
            None => {
                let names = pools.keys().map(String::as_str).take(SUGGESTIBLE);
                FoundPool::Nothing(nearest(name, names))
            }
        };
        for (key, value) in named(source, table, "peer", &mut self.errors) {
            let place = source.place(&key.span());
            let name = PeerName::from(key.get_ref().as_ref());
            let earlier = self.peers.get(&name).map(|peer| peer.place.clone());
            let mut config = None;
            if let Some(mut section) =
                section(source, "peer", (key, value), keys::PEER, &mut self.errors)
            {
                defined_once(&mut section, earlier.as_ref());
                config = peer::read(&mut section, &name, find, &mut self.warnings).map(Arc::new);
            }
            if earlier.is_none() {
                let _new = self.peers.insert(name, PlacedPeer { config, place });
            }
        }
        for entry in named(source, table, "user", &mut self.errors) {
            self.user(source, entry);
        }
    }

    fn user(&mut self, source: &Source, (key, value): Entry<'_>) {
        let place = source.place(&key.span());
        let name = key.get_ref().as_ref();
        let earlier = self.users.get(name).map(|(_, place)| place.clone());
        let title = format!("user.{name}");
        let Some(table) = table_of(source, &title, value, "a table [user.NAME]", &mut self.errors)
        else {
            return;
        };
        let mut section =
            Section::new(source, title, key.span(), table, keys::USER, &mut self.errors);
        defined_once(&mut section, earlier.as_ref());
        if self.users.len() == eap::USERS_LIMIT {
            let limit = eap::USERS_LIMIT;
            section.whole_fault(Fault::expected("too many users", format_args!("at most {limit}")));
        }
        let user = eap::read_user(&mut section, name, &mut self.warnings).map(Arc::new);
        if earlier.is_none() && self.users.len() <= eap::USERS_LIMIT {
            let _new = self.users.insert(UserName::from(name), (user, place));
        }
    }

    fn gateway(
        &mut self,
        source: &Source,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(table) = table_of(source, "gateway", value, "a table [gateway]", &mut self.errors)
        else {
            return;
        };
        let name = "gateway".to_owned();
        let mut section =
            Section::new(source, name, key.span(), table, keys::GATEWAY, &mut self.errors);
        defined_once(&mut section, self.settings.as_ref().map(|(_, place)| place));
        let settings = settings::read(&mut section, &mut self.warnings);
        let metrics_place = section.place("metrics-listen");
        if self.settings.is_none() {
            self.metrics_place = metrics_place;
            self.settings = Some((settings, source.place(&key.span())));
        }
    }

    /// Reads the rules of a file, when all peers are known.
    fn rules(&mut self, source: &Source, table: &Table<'_>) {
        let (peers, incomplete) = (&self.peers, self.incomplete);
        let find = |name: &str| match peers.get(name) {
            Some(PlacedPeer { config: Some(config), .. }) => Found::Peer(config),
            Some(PlacedPeer { config: None, .. }) => Found::Unclear,
            None if incomplete => Found::Unclear,
            None => {
                Found::Nothing(nearest(name, peers.keys().map(AsRef::as_ref).take(SUGGESTIBLE)))
            }
        };
        for (key, value) in named(source, table, "rule", &mut self.errors) {
            let place = source.place(&key.span());
            let name = RuleName::from(key.get_ref().as_ref());
            let earlier = self.rule_places.get(&name).cloned();
            if let Some(mut section) =
                section(source, "rule", (key, value), keys::RULE, &mut self.errors)
            {
                defined_once(&mut section, earlier.as_ref());
                let rule = rule::read(&mut section, &name, find, &mut self.warnings);
                self.rules.extend(rule.map(|rule| Placed { rule, place: place.clone() }));
            }
            if earlier.is_none() {
                let _new = self.rule_places.insert(name, place);
            }
        }
    }

    fn finish(mut self, dir: &Path, files: usize) -> Result<Loaded, Vec<PolicyError>> {
        self.errors.extend(overlap::check(&self.rules));
        self.errors.extend(indistinguishable(&self.peers));
        if !self.errors.is_empty() {
            self.errors.sort();
            self.errors.dedup();
            return Err(self.errors);
        }
        if files == 0 {
            let fault = Fault::expected("there is no policy file", "files named *.toml");
            self.warnings.push(PolicyError::of_file(dir, fault));
        }
        self.warnings.extend(unused(&self.peers, &self.rules));
        if self.users.is_empty() {
            self.warnings.extend(userless(&self.peers));
        }
        let peers = self.peers.iter();
        let peers =
            peers.filter_map(|(name, peer)| Some((PeerName::clone(name), peer.config.clone()?)));
        let users = self.users.into_iter().filter_map(|(name, (user, _))| Some((name, user?)));
        let rules = self
            .rules
            .into_iter()
            .map(|Placed { rule, .. }| (RuleName::clone(&rule.name), Arc::new(rule)));
        let policies =
            PolicySet { peers: peers.collect(), users: users.collect(), rules: rules.collect() };
        self.warnings.extend(not_asked_for(&policies, &self.peers));
        self.warnings.sort();
        Ok(Loaded {
            settings: self.settings.map(|(settings, _)| settings).unwrap_or_default(),
            policies,
            warnings: self.warnings,
            files,
            directory: dir.to_owned(),
            metrics_place: self.metrics_place,
            rule_places: self.rule_places,
        })
    }
}

type Entry<'a> = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

/// The entries of `[KIND.*]`.
fn named<'a>(
    source: &Source,
    table: &'a Table<'a>,
    kind: &str,
    errors: &mut Vec<PolicyError>,
) -> impl Iterator<Item = Entry<'a>> + use<'a> {
    let expected = format!("tables [{kind}.NAME]");
    let value = table.get(kind);
    value.and_then(|value| table_of(source, kind, value, &expected, errors)).into_iter().flatten()
}

/// The value as a table; that it is none is reported.
fn table_of<'a>(
    source: &Source,
    name: &str,
    value: &'a Spanned<DeValue<'a>>,
    expected: &str,
    errors: &mut Vec<PolicyError>,
) -> Option<&'a Table<'a>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        let fault = wrong_type(value.get_ref(), expected);
        errors.push(PolicyError::at(&source.place(&value.span()), Some(name.to_owned()), fault));
    }
    table
}

/// Begins to read `[KIND.NAME]`.
fn section<'a>(
    source: &'a Source,
    kind: &str,
    (key, value): Entry<'a>,
    keys: &'static [Key],
    errors: &'a mut Vec<PolicyError>,
) -> Option<Section<'a>> {
    let name = format!("{kind}.{}", key.get_ref());
    let table = table_of(source, &name, value, &format!("a table [{kind}.NAME]"), errors)?;
    let mut section = Section::new(source, name, key.span(), table, keys, errors);
    if let Err(fault) = value::name(key.get_ref()) {
        section.whole_fault(fault);
    }
    Some(section)
}

fn defined_once(section: &mut Section<'_>, earlier: Option<&Place>) {
    if let Some(place) = earlier {
        section.whole_fault(already_defined(place));
    }
}

/// Reports peers that are the same to us: whoever comes, nobody could say which of them it is.
fn indistinguishable(peers: &BTreeMap<PeerName, PlacedPeer>) -> Vec<PolicyError> {
    let known = peers.values().filter_map(|peer| Some((peer.config.as_ref()?, &peer.place)));
    let mut sorted: Vec<_> = known.collect();
    sorted.sort_by_key(|(_, place)| *place);
    let mut seen = BTreeMap::new();
    let mut errors = Vec::new();
    for (config, place) in sorted {
        let fold = |id: &Identity| match id {
            Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
            Identity::Address(_) | Identity::Email(_) | Identity::KeyId(_) | Identity::Dn(_) => {
                id.clone()
            }
        };
        let ends = |address: Option<IpAddr>| {
            (
                config.local_address,
                address,
                fold(&config.local_id),
                fold(&config.remote_id),
                // With or without AUTH in the first request: that tells them apart.
                matches!(config.remote_auth, RemoteAuth::Eap(_)),
            )
        };
        let mut all: Vec<_> = config.addresses().map(|address| ends(Some(address))).collect();
        if all.is_empty() {
            all.push(ends(None));
        }
        if let Some((name, other)) = all.iter().find_map(|ends| seen.get(ends)) {
            let message = format!("has the same addresses and identities as peer.{name} ({other})");
            let field = Some(format!("peer.{}", config.name));
            errors.push(PolicyError::at(
                place,
                field,
                Fault::new(message).hint("give each a `remote-id` of its own"),
            ));
        } else {
            seen.extend(all.into_iter().map(|ends| (ends, (&config.name, place))));
        }
    }
    errors
}

/// Warns of peers that have to authenticate by a password when there is none.
fn userless(peers: &BTreeMap<PeerName, PlacedPeer>) -> Vec<PolicyError> {
    let asking = peers.iter().filter(|(_, peer)| {
        peer.config.as_ref().is_some_and(|peer| matches!(&peer.remote_auth, RemoteAuth::Eap(eap) if eap::needs_password(&eap.methods)))
    });
    asking
        .map(|(name, peer)| {
            let fault = Fault::new("there is no [user.NAME] that could authenticate by EAP");
            PolicyError::at(&peer.place, Some(format!("peer.{name}")), fault)
        })
        .collect()
}

/// Who may come with a certificate whose authority we have no room to ask for.
fn not_asked_for(policies: &PolicySet, peers: &BTreeMap<PeerName, PlacedPeer>) -> Vec<PolicyError> {
    let warning = |(name, count): (PeerName, usize)| {
        let fault = Fault::new(format!(
            "{count} of the authorities of this peer are not asked for, since CERTREQ has no room for them"
        ));
        let fault =
            fault.hint("trust fewer, or give the peer an address so that its own come first");
        let peer = peers.get(&name)?;
        Some(PolicyError::at(&peer.place, Some(format!("peer.{name}")), fault))
    };
    policies.not_asked_for().into_iter().filter_map(warning).collect()
}

/// Warns of peers that no rule names.
fn unused(peers: &BTreeMap<PeerName, PlacedPeer>, rules: &[Placed]) -> Vec<PolicyError> {
    let peer_of = |rule: &Rule| match &rule.action {
        Action::Protect(protect) => Some(PeerName::clone(&protect.peer)),
        Action::Bypass | Action::Discard => None,
    };
    let used: std::collections::BTreeSet<_> =
        rules.iter().filter_map(|placed| peer_of(&placed.rule)).collect();
    let idle = peers.iter().filter(|(name, _)| !used.contains(*name));
    idle.map(|(name, peer)| {
        let fault = Fault::new("no rule names this peer, so nothing is protected with it");
        PolicyError::at(&peer.place, Some(format!("peer.{name}")), fault)
    })
    .collect()
}
