//! What of a configuration may change while a broker runs by it.

use super::{Authz, Config};

/// A configuration that was read anew, as far as a running broker can go by it.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Change {
    /// What to go by from now on.
    pub(in crate::broker) config: Config,
    /// The keys and tables of it that are others than before.
    pub(in crate::broker) changed: Vec<&'static str>,
    /// Those that take a restart: they stay as they were.
    pub(in crate::broker) fixed: Vec<&'static str>,
}

impl Change {
    fn take<T: PartialEq>(&mut self, name: &'static str, of: fn(&mut Config) -> &mut T, new: T) {
        let old = of(&mut self.config);
        if *old != new {
            *old = new;
            self.changed.push(name);
        }
    }

    fn keep<T: PartialEq>(&mut self, name: &'static str, of: fn(&Config) -> &T, new: &T) {
        if of(&self.config) != new {
            self.fixed.push(name);
        }
    }
}

impl Config {
    /// What to go by once this is what the file says. Sockets, keys, the database and whatever
    /// hangs on them are there already: of those it is only said that the file has others.
    pub(in crate::broker) fn change_to(&self, new: Self) -> Change {
        // By name, so that nothing is forgotten that is added one day.
        let Self {
            path: _,
            issuer,
            listen,
            expose,
            trusted_proxies,
            forwarded_header,
            mut tls,
            watch_every,
            admin,
            store,
            keys,
            dpop,
            limits,
            origins,
            authz,
            audit,
            notify,
            log,
            telemetry,
            trusted_issuer,
            client,
            directory,
            mut web,
            enrollment,
            policy,
            role,
        } = new;
        let mut change = Change { config: self.clone(), changed: Vec::new(), fixed: Vec::new() };
        change.keep("issuer", |config| &config.issuer, &issuer);
        change.keep("listen", |config| &config.listen, &listen);
        change.keep("expose", |config| &config.expose, &expose);
        change.keep("trusted_proxies", |config| &config.trusted_proxies, &trusted_proxies);
        change.keep("forwarded_header", |config| &config.forwarded_header, &forwarded_header);
        change.keep("[admin]", |config| &config.admin, &admin);
        change.keep("[store]", |config| &config.store, &store);
        change.keep("[keys]", |config| &config.keys, &keys);
        change.keep("[dpop]", |config| &config.dpop, &dpop);
        change.keep("[audit]", |config| &config.audit, &audit);
        change.keep("[log]", |config| &config.log, &log);
        change.keep("[telemetry]", |config| &config.telemetry, &telemetry);
        // Whether there is one says what is spoken on a socket that is open.
        if tls.is_some() != self.tls.is_some() {
            change.fixed.push("[tls]");
            tls = self.tls.clone();
        }
        change.take("[tls]", |config| &mut config.tls, tls);
        // Whether there are pages says which routes there are.
        if web.is_some() != self.web.is_some() {
            change.fixed.push("[web]");
            web = self.web.clone();
        }
        change.take("[web]", |config| &mut config.web, web);
        let authz = change.authz(authz);
        change.take("[authz]", |config| &mut config.authz, authz);
        change.take("watch_every", |config| &mut config.watch_every, watch_every);
        change.take("[notify]", |config| &mut config.notify, notify);
        change.take("[limits]", |config| &mut config.limits, limits);
        change.take("[origins]", |config| &mut config.origins, origins);
        change.take("[trusted_issuer]", |config| &mut config.trusted_issuer, trusted_issuer);
        change.take("[client]", |config| &mut config.client, client);
        change.take("[directory]", |config| &mut config.directory, directory);
        change.take("[enrollment]", |config| &mut config.enrollment, enrollment);
        change.take("[policy]", |config| &mut config.policy, policy);
        change.take("[role]", |config| &mut config.role, role);
        change
    }
}

impl Change {
    /// The table `[authz]` with the listener that there is, or is not.
    fn authz(&mut self, new: Option<Authz>) -> Option<Authz> {
        match (&self.config.authz, new) {
            (Some(old), Some(new)) => {
                if (old.listen, old.expose) != (new.listen, new.expose) {
                    self.fixed.push("[authz] listen");
                }
                Some(Authz { listen: old.listen, expose: old.expose, ..new })
            }
            (None, None) => None,
            (old, _) => {
                self.fixed.push("[authz]");
                old.clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
issuer = "https://broker.example.com"
[tls]
certificate = "c.pem"
key = "k.pem"
[store]
path = "broker.db"
[trusted_issuer.corp]
issuer = "https://login.example.com"
[authz]
proxy = "nginx"
listen = "127.0.0.1:9000"
proxies = ["127.0.0.1"]
[authz.route.api]
origins = ["https://api.example.com"]
audience = "https://api.example.com"
[policy]
files = ["policy.cedar"]
[role.deploy]
audiences = ["https://api.example.com"]
max_ttl = "1h"
"#;

    fn config(toml: &str) -> Config {
        toml::from_str(toml).unwrap()
    }

    /// What becomes of this, written in the place of that.
    fn change(of: &str, to: &str) -> Change {
        assert!(TOML.contains(of), "{of}");
        config(TOML).change_to(config(&TOML.replacen(of, to, 1)))
    }

    #[test]
    fn what_may_change_does_and_what_may_not_is_named() {
        for (of, to, name) in [
            ("1h", "2h", "[role]"),
            ("policy.cedar", "other.cedar", "[policy]"),
            ("login.example.com", "other.example.com", "[trusted_issuer]"),
            ("c.pem", "d.pem", "[tls]"),
            ("[tls]", "watch_every = \"9s\"\n[tls]", "watch_every"),
            ("[policy]", "[limits]\nprincipal.per_minute = 9\n[policy]", "[limits]"),
            ("[policy]", "[notify.a]\nkind = \"command\"\ncommand = [\"a\"]\n[policy]", "[notify]"),
            ("[policy]", "[client.a]\njwks_file = \"a\"\n[policy]", "[client]"),
            ("[policy]", "[directory]\nfile = \"people.toml\"\n[policy]", "[directory]"),
            ("https://api", "https://other", "[authz]"),
            ("nginx", "traefik", "[authz]"),
        ] {
            let change = change(of, to);
            assert_eq!((&change.changed[..], &change.fixed[..]), (&[name][..], &[][..]), "{to}");
            let wanted = config(&TOML.replacen(of, to, 1));
            assert_eq!(change.config, wanted, "{to}");
        }
        for (of, to, name) in [
            ("broker.example.com", "b.example.com", "issuer"),
            ("[tls]", "listen = \"127.0.0.1:1\"\n[tls]", "listen"),
            ("[tls]", "expose = true\n[tls]", "expose"),
            ("[tls]", "trusted_proxies = [\"10.0.0.0/8\"]\n[tls]", "trusted_proxies"),
            ("[tls]", "forwarded_header = \"forwarded\"\n[tls]", "forwarded_header"),
            ("[policy]", "[admin]\nlisten = \"127.0.0.1:2\"\n[policy]", "[admin]"),
            ("broker.db", "other.db", "[store]"),
            ("[policy]", "[keys]\nkek_file = \"kek\"\n[policy]", "[keys]"),
            ("[policy]", "[dpop]\nnonces = \"optional\"\n[policy]", "[dpop]"),
            ("[policy]", "[audit.file.a]\npath = \"a\"\n[policy]", "[audit]"),
            ("[policy]", "[log]\nformat = \"json\"\n[policy]", "[log]"),
            ("[policy]", "[telemetry]\nsampling_ratio = 0.5\n[policy]", "[telemetry]"),
            ("[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"", "", "[tls]"),
            ("[policy]", "[web]\nissuer = \"corp\"\nclient_id = \"a\"\n[policy]", "[web]"),
            ("127.0.0.1:9000", "127.0.0.1:9001", "[authz] listen"),
        ] {
            let change = change(of, to);
            assert_eq!((&change.changed[..], &change.fixed[..]), (&[][..], &[name][..]), "{to}");
            assert_eq!(change.config, config(TOML), "{to}");
        }
    }

    #[test]
    fn the_rest_changes_where_one_of_it_may_not() {
        let (table, _) = TOML.split_once("[authz]").unwrap();
        let (_, rest) = TOML.split_once("[policy]").unwrap();
        let rest = rest.replace("1h", "2h");
        let change = config(TOML).change_to(config(&format!("{table}[policy]{rest}")));
        assert_eq!((&change.changed[..], &change.fixed[..]), (&["[role]"][..], &["[authz]"][..]));
        assert_eq!(change.config.authz, config(TOML).authz);
    }
}
