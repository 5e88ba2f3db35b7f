//! Proposals: what we offer, and the choice between what both ends offer (RFC 7296 2.7, 3.3).

mod additional;

use gateway_wire::{
    EncrId, EsnId, IntegId, KeMethod, PrfId, Proposal, ProtocolId, SecurityAssociation, Transform,
    TransformType,
};

use crate::algorithms::{
    Encryption, EspProposal, EspSuite, Group, IkeProposal, IkeSuite, Integrity, Prf,
};
use crate::error::Error;

pub(crate) use self::additional::Rounds;

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

/// Our proposals for a Child SA with our inbound SPI. No key exchange is offered: the keys come
/// from the IKE SA's (RFC 7296 2.17).
pub(crate) fn offer_esp(ours: &[EspProposal], spi: u32) -> SecurityAssociation {
    let proposals = (1u8..).zip(ours).map(|(number, p)| Proposal {
        number,
        protocol: ProtocolId::ESP,
        spi: spi.to_be_bytes().to_vec(),
        transforms: encryption(&p.encryption)
            .chain(integrity(&p.integrity))
            .chain([EsnId::YES, EsnId::NO].map(|esn| transform(TransformType::ESN, esn.0)))
            .collect(),
    });
    SecurityAssociation { proposals: proposals.collect() }
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

/// The responder's choice for a Child SA, with our inbound SPI in the answer; also gives the
/// peer's SPI.
pub(crate) fn select_esp(
    ours: &[EspProposal],
    offered: &SecurityAssociation,
    our_spi: u32,
) -> Option<(SecurityAssociation, EspSuite, u32)> {
    ours.iter().find_map(|mine| {
        offered.proposals.iter().find_map(|theirs| {
            let spi = esp_spi(theirs)?;
            let suite = match_esp(mine, theirs)?;
            let mut transforms = chosen_cipher(suite.encryption, suite.integrity);
            transforms.push(transform(TransformType::ESN, esn(suite.esn).0));
            decline(theirs, &mut transforms);
            Some((answer(theirs, our_spi.to_be_bytes().to_vec(), transforms), suite, spi))
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

/// The initiator's check of the responder's choice for a Child SA; also gives the peer's SPI.
pub(crate) fn accept_esp(
    ours: &[EspProposal],
    answer: &SecurityAssociation,
) -> Result<(EspSuite, u32), Error> {
    let (mine, theirs) = single(ours, answer)?;
    let spi = esp_spi(theirs).ok_or(Error::BadAnswer("no ESP SPI in the chosen proposal"))?;
    let suite = match_esp(mine, theirs)
        .ok_or(Error::BadAnswer("the chosen transforms are not among ours"))?;
    Ok((suite, spi))
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

/// Proposals in words, for a log line about a refusal.
pub(crate) fn describe(sa: &SecurityAssociation) -> String {
    let one =
        |p: &Proposal| p.transforms.iter().map(describe_transform).collect::<Vec<_>>().join("/");
    sa.proposals.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn describe_transform(t: &Transform) -> String {
    let name = match t.kind {
        TransformType::ENCR => EncrId(t.id).to_string(),
        TransformType::PRF => format!("PRF_{}", PrfId(t.id)),
        TransformType::INTEG => format!("AUTH_{}", IntegId(t.id)),
        TransformType::KE => KeMethod(t.id).to_string(),
        TransformType::ESN => format!("ESN_{}", EsnId(t.id)),
        kind if additional::is_additional(kind) => format!("{kind}_{}", KeMethod(t.id)),
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
    let known = |kind| {
        matches!(kind, T::ENCR | T::PRF | T::INTEG | T::KE) || additional::is_additional(kind)
    };
    if theirs.protocol != ProtocolId::IKE || !only(theirs, known) {
        return None;
    }
    let (encryption, integrity) = match_cipher(&mine.encryption, &mine.integrity, theirs)?;
    let prf: Prf = mine.prf.iter().copied().find(|a| offers(theirs, T::PRF, a.id().0, None))?;
    let possible = |g: &Group| offers(theirs, T::KE, g.id().0, None);
    let groups = || mine.groups.iter().copied().filter(possible);
    let mut sent_first = groups().filter(|g| g.id() == sent).chain(groups());
    let with_rounds = |group| Some((group, additional::choose(mine, theirs, group, rounds)?));
    let (group, additional) = sent_first.find_map(with_rounds)?;
    Some(IkeSuite { encryption, integrity, prf, group, additional })
}

fn match_esp(mine: &EspProposal, theirs: &Proposal) -> Option<EspSuite> {
    use TransformType as T;
    let known = [T::ENCR, T::INTEG, T::KE, T::ESN];
    if theirs.protocol != ProtocolId::ESP || !only(theirs, |kind| known.contains(&kind)) {
        return None;
    }
    // Whoever insists on a further key exchange cannot have it; "NONE" or its absence will do.
    if !lacks(theirs, T::KE) && !offers(theirs, T::KE, KeMethod::NONE.0, None) {
        return None;
    }
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
    Some(EspSuite { encryption, integrity, esn })
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

fn esp_spi(proposal: &Proposal) -> Option<u32> {
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
