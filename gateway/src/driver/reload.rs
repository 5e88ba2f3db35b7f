//! Loading the policy files again: everything is read and checked aside, and only a set without
//! errors takes the place of the one in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_ike::config::PolicySet;
use tokio::task::JoinHandle;

use super::load;
use crate::clock;
use crate::control::{PoliciesReport, ReloadReport};
use crate::policy::{Loaded, PolicyError, Settings};

/// The outcome of reading the files.
pub(super) type Outcome = Result<Loaded, Vec<PolicyError>>;

/// The policy files, and what became of loading them.
#[derive(Debug)]
pub struct Reloader {
    directory: PathBuf,
    /// The settings that the gateway started with.
    settings: Settings,
    running: Option<JoinHandle<Outcome>>,
    /// A reload was asked for while one was running: the files may have changed since it read
    /// them.
    again: bool,
    report: PoliciesReport,
}

impl Reloader {
    /// The `if_id` of the kernel's SAs and policies.
    pub(super) fn if_id(&self) -> u32 {
        self.settings.if_id
    }

    /// Remembers what the gateway started with.
    #[must_use]
    pub fn new(directory: &Path, settings: Settings) -> Self {
        let report = PoliciesReport {
            directory: directory.display().to_string(),
            generation: 1,
            applied_at: clock::unix_seconds(),
            reload_failed: 0,
            last_reload: None,
        };
        Self { directory: directory.to_owned(), settings, running: None, again: false, report }
    }

    /// What the gateway started with.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks for a reload. One that runs is finished first, and then done once more.
    pub(super) fn request(&mut self) {
        if self.running.is_some() {
            self.again = true;
            return;
        }
        let directory = self.directory.clone();
        self.running = Some(tokio::task::spawn_blocking(move || load(&directory)));
    }

    /// Whether a reload is running.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits until a reload has read its files; for ever, when none runs. Cancelling it loses
    /// nothing.
    pub(super) async fn finished(&mut self) -> Outcome {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let result = running.await;
        self.running = None;
        result.unwrap_or_else(|error| {
            Err(vec![PolicyError {
                file: self.directory.clone(),
                position: None,
                field: None,
                message: format!("loading broke off: {error}"),
                hint: None,
            }])
        })
    }

    /// Writes down the outcome, and gives the policies that are to be applied. Begins the reload
    /// that was asked for meanwhile.
    pub(super) fn conclude(&mut self, outcome: Outcome) -> Option<Arc<PolicySet>> {
        let mut report = ReloadReport { at: clock::unix_seconds(), ..ReloadReport::default() };
        let policies = match outcome {
            Err(errors) => {
                for error in &errors {
                    tracing::error!("{error}");
                }
                tracing::error!(
                    errors = errors.len(),
                    "Reload failed: the policies in force stay as they are"
                );
                report.errors = errors.len();
                report.first_error = errors.first().map(ToString::to_string);
                self.report.reload_failed = self.report.reload_failed.saturating_add(1);
                None
            }
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                report.ok = true;
                report.needs_restart = changed(&self.settings, &loaded.settings);
                if !report.needs_restart.is_empty() {
                    let settings = report.needs_restart.join(", ");
                    tracing::warn!(settings, "Changed settings wait for a restart of the gateway");
                }
                // These are in force with the policies.
                self.settings.ike = loaded.settings.ike;
                self.report.generation = self.report.generation.saturating_add(1);
                self.report.applied_at = report.at;
                Some(Arc::new(loaded.policies))
            }
        };
        self.report.last_reload = Some(report);
        if std::mem::take(&mut self.again) {
            self.request();
        }
        policies
    }

    /// For status.
    pub(super) const fn report(&self) -> &PoliciesReport {
        &self.report
    }
}

/// The keys of `[gateway]` that differ and cannot change while the gateway runs.
fn changed(old: &Settings, new: &Settings) -> Vec<String> {
    let Settings {
        interfaces,
        xfrm_interface,
        if_id,
        nat_exemption,
        drop_unknown_esp,
        steer_cpus,
        pin_dir,
        control_socket,
        state_dir,
        resolv_conf,
        journal,
        early,
        endpoint,
        // A reload changes these.
        metrics_listen: _,
        ike: _,
    } = old;
    let limits = &new.endpoint;
    let of_log = &new.journal;
    [
        ("interfaces", *interfaces != new.interfaces),
        ("xfrm-interface", *xfrm_interface != new.xfrm_interface),
        ("if-id", *if_id != new.if_id),
        ("nat-exemption", *nat_exemption != new.nat_exemption),
        ("drop-unknown-esp", *drop_unknown_esp != new.drop_unknown_esp),
        ("steer-cpus", *steer_cpus != new.steer_cpus),
        ("pin-dir", *pin_dir != new.pin_dir),
        ("control-socket", *control_socket != new.control_socket),
        ("state-dir", *state_dir != new.state_dir),
        ("resolv-conf", *resolv_conf != new.resolv_conf),
        ("retransmit-initial", endpoint.retransmit_initial != limits.retransmit_initial),
        ("retransmit-tries", endpoint.retransmit_tries != limits.retransmit_tries),
        ("cookie-threshold", endpoint.cookie_threshold != limits.cookie_threshold),
        ("init-size-limit", endpoint.init_size_limit != limits.init_size_limit),
        ("half-open-limit", endpoint.half_open_limit != limits.half_open_limit),
        ("ike-sa-limit", endpoint.ike_sa_limit != limits.ike_sa_limit),
        (
            "half-open-address-limit",
            endpoint.half_open_address_limit != limits.half_open_address_limit,
        ),
        ("half-open-timeout", endpoint.half_open_timeout != limits.half_open_timeout),
        ("peer-ike-sa-limit", endpoint.peer_ike_sa_limit != limits.peer_ike_sa_limit),
        (
            "unprotected-answer-rate",
            endpoint.unprotected_answers_per_second != limits.unprotected_answers_per_second,
        ),
        ("job-limit", endpoint.job_limit != limits.job_limit),
        ("eap-message-limit", endpoint.eap_message_limit != limits.eap_message_limit),
        ("reassembly-timeout", endpoint.reassembly_timeout != limits.reassembly_timeout),
        ("child-sa-limit", endpoint.child_sa_limit != limits.child_sa_limit),
        ("peer-child-sa-limit", endpoint.peer_child_sa_limit != limits.peer_child_sa_limit),
        ("eap-timeout", endpoint.eap_timeout != limits.eap_timeout),
        ("eap-round-limit", endpoint.eap_round_limit != limits.eap_round_limit),
        (
            "certificate-chain-limit",
            endpoint.certificate_chain_limit != limits.certificate_chain_limit,
        ),
        (
            "certificate-size-limit",
            endpoint.certificate_size_limit != limits.certificate_size_limit,
        ),
        ("replay-window", endpoint.replay_window != limits.replay_window),
        ("keepalive-interval", endpoint.keepalive_interval != limits.keepalive_interval),
        ("fragment-size", endpoint.fragment_size != limits.fragment_size),
        ("reassembly-limit", endpoint.reassembly_limit != limits.reassembly_limit),
        ("peer-log-rate", journal.peer_log_rate != of_log.peer_log_rate),
        ("stranger-log-rate", journal.stranger_log_rate != of_log.stranger_log_rate),
        ("complaint-log-rate", journal.complaint_log_rate != of_log.complaint_log_rate),
        ("refusals-kept", journal.refusals_kept != of_log.refusals_kept),
        ("log-line-limit", journal.log_line_limit != of_log.log_line_limit),
        ("user-log-limit", journal.user_log_limit != of_log.user_log_limit),
        ("refusal-size-limit", endpoint.refusal_size_limit != limits.refusal_size_limit),
        (
            "refused-initiator-limit",
            endpoint.refused_initiator_limit != limits.refused_initiator_limit,
        ),
        ("init-transform-limit", endpoint.init_transform_limit != limits.init_transform_limit),
        ("old-keys-limit", endpoint.old_keys_limit != limits.old_keys_limit),
        ("followup-ke-limit", endpoint.followup_ke_limit != limits.followup_ke_limit),
        ("selector-pair-limit", endpoint.selector_pair_limit != limits.selector_pair_limit),
        ("peer-address-limit", endpoint.peer_address_limit != limits.peer_address_limit),
        ("cfg-attribute-limit", endpoint.cfg_attribute_limit != limits.cfg_attribute_limit),
        ("name-server-limit", endpoint.name_server_limit != limits.name_server_limit),
        ("deleted-spi-limit", endpoint.deleted_spi_limit != limits.deleted_spi_limit),
        ("early-esp-sa-limit", early.sa_limit != new.early.sa_limit),
        ("early-esp-size-limit", early.size_limit != new.early.size_limit),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str =
        "[rule.local]\naction = \"bypass\"\nlocal = [\"10.0.0.0/8\"]\nremote = [\"10.0.0.0/8\"]\n";

    fn directory(content: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.toml"), content).unwrap();
        directory
    }

    #[tokio::test]
    async fn a_good_file_is_applied_and_a_broken_one_is_not() {
        let directory = directory(GOOD);
        let mut reload = Reloader::new(directory.path(), Settings::default());
        reload.request();
        let outcome = reload.finished().await;
        assert_eq!(reload.conclude(outcome).unwrap().rules.len(), 1);
        assert_eq!(reload.report().generation, 2);

        fs::write(directory.path().join("a.toml"), "[rule.local]\nnonsense = 1\n").unwrap();
        reload.request();
        let outcome = reload.finished().await;
        assert!(reload.conclude(outcome).is_none());
        let report = reload.report();
        assert_eq!((report.generation, report.reload_failed), (2, 1));
        let last = report.last_reload.clone().unwrap();
        assert!(!last.ok && last.errors > 0);
        let first = last.first_error.unwrap();
        assert!(first.contains("a.toml:"), "{first}");
    }

    #[tokio::test]
    async fn requests_during_a_reload_cause_one_more() {
        let directory = directory(GOOD);
        let mut reload = Reloader::new(directory.path(), Settings::default());
        for _ in 0..3 {
            reload.request();
        }
        let outcome = reload.finished().await;
        assert!(reload.conclude(outcome).is_some());
        assert!(reload.is_running());
        let outcome = reload.finished().await;
        assert!(reload.conclude(outcome).is_some());
        assert!(!reload.is_running());
        assert_eq!(reload.report().generation, 3);
    }

    #[test]
    fn every_limit_that_differs_is_named() {
        let text = |limits: &str| {
            let directory = directory(&format!("[gateway]\n{limits}{GOOD}"));
            load(directory.path()).unwrap().settings
        };
        for (name, value) in [
            ("half-open-address-limit", "7"),
            ("init-size-limit", "7777"),
            ("half-open-timeout", "\"7s\""),
            ("ike-sa-limit", "7"),
            ("peer-ike-sa-limit", "7"),
            ("child-sa-limit", "7"),
            ("peer-child-sa-limit", "7"),
            ("job-limit", "77"),
            ("unprotected-answer-rate", "7"),
            ("eap-message-limit", "7777"),
            ("reassembly-limit", "7777"),
            ("reassembly-timeout", "\"7s\""),
            ("resolv-conf", "\"/run/resolv.conf\""),
            ("log-line-limit", "777"),
            ("user-log-limit", "7"),
            ("refusal-size-limit", "7777"),
            ("refused-initiator-limit", "7"),
            ("init-transform-limit", "777"),
            ("old-keys-limit", "7"),
            ("followup-ke-limit", "7"),
            ("selector-pair-limit", "77"),
            ("peer-address-limit", "7"),
            ("cfg-attribute-limit", "77"),
            ("name-server-limit", "7"),
            ("deleted-spi-limit", "7"),
            ("early-esp-sa-limit", "7"),
            ("early-esp-size-limit", "7777"),
        ] {
            let new = text(&format!("{name} = {value}\n"));
            assert_eq!(changed(&Settings::default(), &new), [name]);
        }
    }

    #[tokio::test]
    async fn a_changed_setting_waits_for_a_restart() {
        let directory = directory(&format!("[gateway]\nif-id = 9\n{GOOD}"));
        let mut reload = Reloader::new(directory.path(), Settings::default());
        reload.request();
        let outcome = reload.finished().await;
        assert!(reload.conclude(outcome).is_some());
        assert_eq!(reload.report().last_reload.clone().unwrap().needs_restart, ["if-id"]);
    }
}
