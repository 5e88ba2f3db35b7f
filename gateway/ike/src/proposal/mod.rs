//! Proposals: what we offer, and the choice between what both ends offer (RFC 7296 2.7, 3.3).

mod additional;

use gateway_wire::{
    EncrId, EsnId, IkeSpi, IntegId, KeMethod, PrfId, Proposal, ProtocolId, SecurityAssociation,
    Transform, TransformType,
};

use crate::algorithms::{
    Additional, AdditionalOffer, ChildKeyExchange, Encryption, EspProposal, EspSuite, Group,
    IkeProposal, IkeSuite, Integrity, Prf,
};
use crate::error::Error;

pub(crate) use self::additional::{Rounds, is_additional};

/// Our proposals for an IKE SA as they stand in the SA payload.
pub(crate) fn offer_ike(ours: &[IkeProposal]) -> SecurityAssociation {
    let proposals = (1u8..).zip(ours).map(|(number, p)| Proposal {
        number,
        protocol: ProtocolId::IKE,
        spi: Vec::new(),
        transforms: encryption(&p.encryption)
            .chain(p.prf.iter().map(|a| transform(TransformType::PRF, a.id().0)))
            .chain(integrity(&p.integrity))
            .chain(p.groups.iter().map(|g| transform(TransformType::KE, g.id().0)))
            .chain(additional::transforms(&p.additional))
            .collect(),
    });
    SecurityAssociation { proposals: proposals.collect() }
}

/// The exchange in which a Child SA is negotiated: one of them cannot hold a key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildExchange {
    /// IKE_AUTH: the keys come from the IKE SA's, and no method may be named (RFC 7296 1.2).
    Auth,
    /// CREATE_CHILD_SA, with the method of the initiator's KE payload if it sent one.
    CreateChild(Option<KeMethod>),
}

/// Our proposals for a Child SA with our inbound SPI. `pfs`: also with key exchange methods,
/// which IKE_AUTH must not have.
pub(crate) fn offer_esp(ours: &[EspProposal], spi: u32, pfs: bool) -> SecurityAssociation {
    let none = |p: &EspProposal| (!p.groups.is_empty() && p.pfs_optional).then_some(KeMethod::NONE);
    let methods = |p: &EspProposal| {
        let methods = p.groups.iter().map(|g| g.id()).chain(none(p));
        let first = methods.map(|m| transform(TransformType::KE, m.0));
        let all = first.chain(additional::transforms(&p.additional));
        all.filter(|_| pfs).collect::<Vec<_>>()
    };
    let proposals = (1u8..).zip(ours).map(|(number, p)| Proposal {
        number,
        protocol: ProtocolId::ESP,
        spi: spi.to_be_bytes().to_vec(),
        transforms: encryption(&p.encryption)
            .chain(integrity(&p.integrity))
            .chain(methods(p))
            .chain([EsnId::YES, EsnId::NO].map(|esn| transform(TransformType::ESN, esn.0)))
            .collect(),
    });
    SecurityAssociation { proposals: proposals.collect() }
}

/// Gives each proposal for an IKE SA that is rekeyed the SPI of its successor (RFC 7296 3.3.1).
pub(crate) fn with_ike_spi(mut sa: SecurityAssociation, spi: IkeSpi) -> SecurityAssociation {
    for proposal in &mut sa.proposals {
        proposal.spi = spi.0.to_vec();
    }
    sa
}

/// The SPI that the peer gives to the successor of an IKE SA, in the proposal with the number of
/// the one that was chosen.
pub(crate) fn ike_spi(
    theirs: &SecurityAssociation,
    chosen: &SecurityAssociation,
) -> Result<IkeSpi, Error> {
    let number = chosen.proposals.first().map(|p| p.number);
    let proposal = theirs.proposals.iter().find(|p| Some(p.number) == number);
    proposal
        .and_then(|p| p.spi.as_slice().try_into().ok())
        .map(IkeSpi)
        .filter(|spi| !spi.is_zero())
        .ok_or(Error::BadAnswer("no SPI for the new IKE SA"))
}

/// The responder's choice for an IKE SA: our best proposal that the peer also offers.
///
/// Among our key exchange methods the one that the peer has already sent a value for is
/// preferred, since any other costs a round trip. `rounds` says whether the peer can do
/// additional ones.
pub(crate) fn select_ike(
    ours: &[IkeProposal],
    offered: &SecurityAssociation,
    sent: KeMethod,
    rounds: Rounds,
) -> Option<(SecurityAssociation, IkeSuite)> {
    ours.iter().find_map(|mine| {
        offered.proposals.iter().find_map(|theirs| {
            let suite = match_ike(mine, theirs, sent, rounds)?;
            let mut transforms = chosen_cipher(suite.encryption, suite.integrity);
            transforms.push(transform(TransformType::PRF, suite.prf.id().0));
            transforms.push(transform(TransformType::KE, suite.group.id().0));
            decline(theirs, &mut transforms);
            transforms.extend(additional::chosen(suite.additional, theirs));
            Some((answer(theirs, Vec::new(), transforms), suite))
        })
    })
}

/// What both ends agree on for a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EspChoice {
    pub(crate) suite: EspSuite,
    /// Its own key exchange, if it has one.
    pub(crate) key_exchange: Option<ChildKeyExchange>,
    pub(crate) peer_spi: u32,
}

/// The responder's choice for a Child SA, with our inbound SPI in the answer.
pub(crate) fn select_esp(
    ours: &[EspProposal],
    offered: &SecurityAssociation,
    our_spi: u32,
    exchange: ChildExchange,
) -> Option<(SecurityAssociation, EspChoice)> {
    ours.iter().find_map(|mine| {
        offered.proposals.iter().find_map(|theirs| {
            let peer_spi = esp_spi(theirs)?;
            let (suite, key_exchange) = match_esp(mine, theirs, exchange)?;
            let mut transforms = chosen_cipher(suite.encryption, suite.integrity);
            transforms.extend(key_exchange.map(|k| transform(TransformType::KE, k.group.id().0)));
            transforms.push(transform(TransformType::ESN, esn(suite.esn).0));
            decline(theirs, &mut transforms);
            let additional = key_exchange.map_or(Additional::NONE, |k| k.additional);
            transforms.extend(additional::chosen(additional, theirs));
            let chosen = answer(theirs, our_spi.to_be_bytes().to_vec(), transforms);
            Some((chosen, EspChoice { suite, key_exchange, peer_spi }))
        })
    })
}

/// The initiator's check of the responder's choice for an IKE SA.
pub(crate) fn accept_ike(
    ours: &[IkeProposal],
    answer: &SecurityAssociation,
    rounds: Rounds,
) -> Result<IkeSuite, Error> {
    let (mine, theirs) = single(ours, answer)?;
    let group = theirs
        .transforms
        .iter()
        .find(|t| t.kind == TransformType::KE)
        .map_or(KeMethod::NONE, |t| KeMethod(t.id));
    match_ike(mine, theirs, group, rounds)
        .ok_or(Error::BadAnswer("the chosen transforms are not among ours"))
}

/// The initiator's check of the responder's choice for a Child SA.
pub(crate) fn accept_esp(
    ours: &[EspProposal],
    answer: &SecurityAssociation,
    exchange: ChildExchange,
) -> Result<EspChoice, Error> {
    let (mine, theirs) = single(ours, answer)?;
    let peer_spi = esp_spi(theirs).ok_or(Error::BadAnswer("no ESP SPI in the chosen proposal"))?;
    let (suite, key_exchange) = match_esp(mine, theirs, exchange)
        .ok_or(Error::BadAnswer("the chosen transforms are not among ours"))?;
    if let (Some(chosen), ChildExchange::CreateChild(sent)) = (key_exchange, exchange)
        && sent != Some(chosen.group.id())
    {
        return Err(Error::BadAnswer("another key exchange method than the one we sent"));
    }
    Ok(EspChoice { suite, key_exchange, peer_spi })
}

/// Whether one of our proposals has this suite in it.
pub(crate) fn accepts(ours: &[IkeProposal], suite: IkeSuite) -> bool {
    ours.iter().any(|p| {
        p.encryption.contains(&suite.encryption)
            && suite.integrity.is_none_or(|i| p.integrity.contains(&i))
            && p.prf.contains(&suite.prf)
            && p.groups.contains(&suite.group)
            && additional::accepts(&p.additional, suite.additional)
    })
}

/// A proposal in words.
pub(crate) fn describe(proposal: &Proposal) -> String {
    proposal.transforms.iter().map(describe_transform).collect::<Vec<_>>().join("/")
}

/// A transform in words.
pub(crate) fn describe_transform(t: &Transform) -> String {
    let name = match t.kind {
        TransformType::ENCR => EncrId(t.id).to_string(),
        TransformType::PRF => format!("PRF_{}", PrfId(t.id)),
        TransformType::INTEG => format!("AUTH_{}", IntegId(t.id)),
        TransformType::KE => KeMethod(t.id).to_string(),
        TransformType::ESN => format!("ESN_{}", EsnId(t.id)),
        kind if is_additional(kind) => format!("{kind}_{}", KeMethod(t.id)),
        other => format!("transform{}_{}", other.0, t.id),
    };
    t.key_length.map_or_else(|| name.clone(), |bits| format!("{name}_{bits}"))
}

/// The answer must be one proposal, with the number of one of ours, and one transform a type.
fn single<'a, P>(
    ours: &'a [P],
    answer: &'a SecurityAssociation,
) -> Result<(&'a P, &'a Proposal), Error> {
    let [theirs] = answer.proposals.as_slice() else {
        return Err(Error::BadAnswer("not exactly one proposal"));
    };
    let mine = usize::from(theirs.number).checked_sub(1).and_then(|n| ours.get(n));
    let mine = mine.ok_or(Error::BadAnswer("a proposal number that we did not offer"))?;
    let repeated =
        |t: &Transform| theirs.transforms.iter().filter(|o| o.kind == t.kind).count() != 1;
    if theirs.transforms.iter().any(repeated) {
        return Err(Error::BadAnswer("several transforms of one type"));
    }
    Ok((mine, theirs))
}

fn match_ike(
    mine: &IkeProposal,
    theirs: &Proposal,
    sent: KeMethod,
    rounds: Rounds,
) -> Option<IkeSuite> {
    use TransformType as T;
    let known = |kind| matches!(kind, T::ENCR | T::PRF | T::INTEG | T::KE) || is_additional(kind);
    if theirs.protocol != ProtocolId::IKE || !only(theirs, known) {
        return None;
    }
    let (encryption, integrity) = match_cipher(&mine.encryption, &mine.integrity, theirs)?;
    let prf: Prf = mine.prf.iter().copied().find(|a| offers(theirs, T::PRF, a.id().0, None))?;
    let possible = |g: &Group| offers(theirs, T::KE, g.id().0, None);
    let groups = || mine.groups.iter().copied().filter(possible);
    let mut sent_first = groups().filter(|g| g.id() == sent).chain(groups());
    let with_rounds =
        |group| Some((group, additional::choose(&mine.additional, theirs, Some(group), rounds)?));
    let (group, additional) = sent_first.find_map(with_rounds)?;
    Some(IkeSuite { encryption, integrity, prf, group, additional })
}

fn match_esp(
    mine: &EspProposal,
    theirs: &Proposal,
    exchange: ChildExchange,
) -> Option<(EspSuite, Option<ChildKeyExchange>)> {
    use TransformType as T;
    let known = |kind| matches!(kind, T::ENCR | T::INTEG | T::KE | T::ESN) || is_additional(kind);
    if theirs.protocol != ProtocolId::ESP || !only(theirs, known) {
        return None;
    }
    let key_exchange = match_key_exchange(mine, theirs, exchange)?;
    let (encryption, integrity) = match_cipher(&mine.encryption, &mine.integrity, theirs)?;
    let has = |esn: EsnId| offers(theirs, T::ESN, esn.0, None);
    // RFC 7296 3.3.3: mandatory, so a proposal without it is not acceptable (3.3.6).
    let esn = if has(EsnId::YES) {
        true
    } else if has(EsnId::NO) {
        false
    } else {
        return None;
    };
    Some((EspSuite { encryption, integrity, esn }, key_exchange))
}

/// The key exchange of a Child SA, `Some(None)` for none; `None`: no agreement.
///
/// The method that the initiator has sent a value for is preferred, since any other costs a
/// round trip, and any before none.
fn match_key_exchange(
    mine: &EspProposal,
    theirs: &Proposal,
    exchange: ChildExchange,
) -> Option<Option<ChildKeyExchange>> {
    let without = lacks(theirs, TransformType::KE)
        || offers(theirs, TransformType::KE, KeMethod::NONE.0, None);
    let rounds = |offer, group| additional::choose(offer, theirs, group, Rounds::Possible);
    let ChildExchange::CreateChild(sent) = exchange else {
        let none = AdditionalOffer::new();
        return (without && rounds(&none, None).is_some()).then_some(None);
    };
    let possible = |g: &Group| offers(theirs, TransformType::KE, g.id().0, None);
    let groups = || mine.groups.iter().copied().filter(possible);
    let mut sent_first = groups().filter(|g| Some(g.id()) == sent).chain(groups());
    let with = |group| {
        let additional = rounds(&mine.additional, Some(group))?;
        Some(ChildKeyExchange { group, additional })
    };
    match sent_first.find_map(with) {
        Some(chosen) => Some(Some(chosen)),
        None => {
            let none = without && mine.allows_no_group();
            (none && rounds(&mine.additional, None).is_some()).then_some(None)
        }
    }
}

/// The first of our ciphers that the peer offers, with the integrity algorithm that it needs.
fn match_cipher(
    encryption: &[Encryption],
    integrity: &[Integrity],
    theirs: &Proposal,
) -> Option<(Encryption, Option<Integrity>)> {
    let offered =
        |e: &Encryption| offers(theirs, TransformType::ENCR, e.id().0, e.key_length_attribute());
    let cipher = encryption.iter().copied().find(offered)?;
    if cipher.is_aead() {
        // RFC 5282 8: no integrity transform, or "NONE".
        let fits = lacks(theirs, TransformType::INTEG)
            || offers(theirs, TransformType::INTEG, IntegId::NONE.0, None);
        return fits.then_some((cipher, None));
    }
    let mac =
        integrity.iter().copied().find(|a| offers(theirs, TransformType::INTEG, a.id().0, None))?;
    Some((cipher, Some(mac)))
}

/// A transform with an attribute that we do not understand is not chosen (RFC 7296 3.3.6).
fn offers(proposal: &Proposal, kind: TransformType, id: u16, key_length: Option<u16>) -> bool {
    let is = |t: &Transform| t.kind == kind && t.id == id && t.key_length == key_length;
    proposal.transforms.iter().any(|t| is(t) && !t.unknown_attribute)
}

/// Whether a type is absent: one of which we understand no transform is not, and none of it can
/// be chosen.
fn lacks(proposal: &Proposal, kind: TransformType) -> bool {
    proposal.transforms.iter().all(|t| t.kind != kind)
}

/// A proposal with a transform type that we do not understand is refused whole (RFC 7296 3.3.6).
fn only(proposal: &Proposal, known: impl Fn(TransformType) -> bool) -> bool {
    proposal.transforms.iter().all(|t| known(t.kind))
}

/// The SPI of a proposal for ESP; `None`: it is none.
pub(crate) fn esp_spi(proposal: &Proposal) -> Option<u32> {
    let octets: [u8; 4] = proposal.spi.as_slice().try_into().ok()?;
    // RFC 4303 2.1: 1 to 255 are reserved, 0 is for local use.
    Some(u32::from_be_bytes(octets)).filter(|spi| *spi >= 256)
}

const fn esn(extended: bool) -> EsnId {
    if extended { EsnId::YES } else { EsnId::NO }
}

const fn transform(kind: TransformType, id: u16) -> Transform {
    Transform { kind, id, key_length: None, unknown_attribute: false }
}

fn encryption(algorithms: &[Encryption]) -> impl Iterator<Item = Transform> + '_ {
    algorithms.iter().map(|e| Transform {
        key_length: e.key_length_attribute(),
        ..transform(TransformType::ENCR, e.id().0)
    })
}

fn integrity(algorithms: &[Integrity]) -> impl Iterator<Item = Transform> + '_ {
    algorithms.iter().map(|a| transform(TransformType::INTEG, a.id().0))
}

fn chosen_cipher(cipher: Encryption, mac: Option<Integrity>) -> Vec<Transform> {
    encryption(&[cipher]).chain(integrity(mac.as_slice())).collect()
}

/// RFC 7296 2.7: the answer has one transform of each type of the proposal, so an optional type
/// that we can do without is answered with "NONE", which is then among what was offered.
fn decline(theirs: &Proposal, transforms: &mut Vec<Transform>) {
    for (kind, none) in
        [(TransformType::INTEG, IntegId::NONE.0), (TransformType::KE, KeMethod::NONE.0)]
    {
        if !lacks(theirs, kind) && transforms.iter().all(|t| t.kind != kind) {
            transforms.push(transform(kind, none));
        }
    }
}

fn answer(theirs: &Proposal, spi: Vec<u8>, transforms: Vec<Transform>) -> SecurityAssociation {
    let chosen = Proposal { number: theirs.number, protocol: theirs.protocol, spi, transforms };
    SecurityAssociation { proposals: vec![chosen] }
}

#[cfg(test)]
mod tests;
