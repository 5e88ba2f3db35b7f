//! Authorities, and certificates of every kind that they issue.

use std::net::IpAddr;
use std::time::Duration;

use gateway_ike::crypto::signature::KeyKind;
use gateway_ike::crypto::x509::{Revocation, RevocationList, Trust, TrustAnchors};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// 2026-06-01, the day on which the tests take place.
pub(crate) const NOW: Duration = Duration::from_secs(1_780_272_000);

/// Every kind of key.
pub(crate) const KEYS: [KeyKind; 5] =
    [KeyKind::Rsa(2048), KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519];
/// Those of which the library that issues certificates here knows something.
pub(crate) const CERTIFIABLE: [KeyKind; 4] =
    [KeyKind::Rsa(2048), KeyKind::P256, KeyKind::P384, KeyKind::Ed25519];

/// A private key of a kind, in PEM: of no use but for tests.
pub(crate) fn key(kind: KeyKind) -> &'static [u8] {
    match kind {
        KeyKind::Rsa(_) => include_bytes!("../keys/rsa-2048.pem"),
        KeyKind::P256 => include_bytes!("../keys/p256.pem"),
        KeyKind::P384 => include_bytes!("../keys/p384.pem"),
        KeyKind::P521 => include_bytes!("../keys/p521.pem"),
        KeyKind::Ed25519 => include_bytes!("../keys/ed25519.pem"),
    }
}

/// The serial number of each certificate of an authority that is no root.
pub(crate) const INTERMEDIATE: u64 = 1000;

fn key_pair(kind: KeyKind) -> KeyPair {
    KeyPair::from_pem(core::str::from_utf8(key(kind)).unwrap()).unwrap()
}

/// Whom a certificate is for, and what is in it.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) key: KeyKind,
    pub(crate) alternative: Vec<SanType>,
    /// When it begins and ends, in days from now.
    pub(crate) days: (i64, i64),
    /// The one purpose in its extended key usage.
    pub(crate) purpose: Option<Vec<u64>>,
    /// Whether its key is for encryption only.
    pub(crate) encrypts: bool,
    pub(crate) serial: u64,
}

impl Subject {
    /// With a certificate that is good.
    pub(crate) fn new(name: &'static str, key: KeyKind) -> Self {
        let mut alternative = names(&[name]);
        alternative.push(SanType::Rfc822Name(format!("ops@{name}").try_into().unwrap()));
        for address in ["192.0.2.1", "2001:db8::1"] {
            alternative.push(SanType::IpAddress(address.parse::<IpAddr>().unwrap()));
        }
        Self { name, key, alternative, days: (-10, 10), purpose: None, encrypts: false, serial: 7 }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Test");
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.subject_alt_names.clone_from(&self.alternative);
        (params.not_before, params.not_after) = (day(self.days.0), day(self.days.1));
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.key_usages = vec![if self.encrypts {
            KeyUsagePurpose::KeyEncipherment
        } else {
            KeyUsagePurpose::DigitalSignature
        }];
        params.extended_key_usages =
            self.purpose.iter().map(|p| ExtendedKeyUsagePurpose::Other(p.clone())).collect();
        params
    }
}

pub(crate) fn names(names: &[&str]) -> Vec<SanType> {
    names.iter().map(|n| SanType::DnsName((*n).try_into().unwrap())).collect()
}

fn day(from_now: i64) -> time::OffsetDateTime {
    date_time_ymd(2026, 6, 1) + time::Duration::days(from_now)
}

/// A certification authority with the certificates that lead to it from a root.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its own certificate, then those above it without the root's.
    chain: Vec<Vec<u8>>,
    root: Vec<u8>,
}

impl Authority {
    /// A root.
    pub(crate) fn new(name: &str) -> Self {
        Self::of(name, KeyPair::generate().unwrap())
    }

    /// A root with the key of its kind: the same octets in each run, if that signs the same.
    pub(crate) fn with_key(name: &str, kind: KeyKind) -> Self {
        Self::of(name, key_pair(kind))
    }

    fn of(name: &str, key: KeyPair) -> Self {
        let params = Self::params(name);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, chain: Vec::new(), root }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (day(-100), day(100));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// One whose certificate this one has issued.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.below(Self::params(name))
    }

    /// The same, good for so many days.
    pub(crate) fn intermediate_until(&self, name: &str, days: i64) -> Self {
        let mut params = Self::params(name);
        params.not_after = day(days);
        self.below(params)
    }

    /// One that may issue certificates only for some names, or not for others.
    pub(crate) fn constrained(
        &self,
        name: &str,
        permitted: &[GeneralSubtree],
        excluded: &[GeneralSubtree],
    ) -> Self {
        let mut params = Self::params(name);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.to_vec(),
            excluded_subtrees: excluded.to_vec(),
        });
        self.below(params)
    }

    fn below(&self, mut params: CertificateParams) -> Self {
        params.serial_number = Some(SerialNumber::from(INTERMEDIATE));
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.issuer()).unwrap().der().to_vec();
        let chain = core::iter::once(own).chain(self.chain.iter().cloned()).collect();
        Self { params, key, chain, root: self.root.clone() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate, then those that lead to the root.
    pub(crate) fn issue(&self, subject: &Subject) -> Vec<Vec<u8>> {
        let own = subject.params().signed_by(&key_pair(subject.key), &self.issuer()).unwrap();
        core::iter::once(own.der().to_vec()).chain(self.chain.iter().cloned()).collect()
    }

    /// A revocation list that is good for some days.
    pub(crate) fn revoke(&self, serials: &[u64], days: i64) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: day(-2),
            next_update: day(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().der().to_vec()
    }
}

/// A certificate that its own key has signed.
pub(crate) fn self_signed(subject: &Subject) -> Vec<u8> {
    subject.params().self_signed(&key_pair(subject.key)).unwrap().der().to_vec()
}

/// Trust in the roots of several authorities.
pub(crate) fn trust_in_each(authorities: &[Authority]) -> Trust {
    trust_in(&authorities.iter().map(|authority| authority.root.clone()).collect::<Vec<_>>())
}

/// Trust in the root of an authority.
pub(crate) fn trust(authority: &Authority) -> Trust {
    trust_in(core::slice::from_ref(&authority.root))
}

pub(crate) fn trust_in(certificates: &[Vec<u8>]) -> Trust {
    Trust {
        anchors: TrustAnchors::new(certificates).unwrap(),
        revocation: Revocation::IfAvailable,
        lists: Vec::new(),
        responses: Vec::new(),
    }
}

pub(crate) fn lists(ders: &[Vec<u8>]) -> Vec<RevocationList> {
    ders.iter().flat_map(|der| RevocationList::from_file(der).unwrap()).collect()
}
