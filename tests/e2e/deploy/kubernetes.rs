//! The manifests of `deploy/kubernetes/`: whether Kubernetes takes them, what they promise,
//! and two replicas that run by them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::ours;
use crate::support::aws::python_program;
use crate::support::broker::{API, KEK, KEK_VARIABLE};
use crate::support::home::{Home, tmpcred};
use crate::support::http::Http;
use crate::support::peer::program;
use crate::support::postgres::{PASSWORD, Postgres};
use crate::support::run::Running;
use crate::support::tls::{Authority, ServerCertificate};
use crate::support::wait::{free_port, wait_until};
use crate::support::workload::{Workloads, exchange};

const SOON: Duration = Duration::from_secs(60);

/// How long the broker takes to end at most, after it is told to: requests, what is queued, and
/// the listeners beside the public one.
const END: u64 = 30 + 5 + 2;

/// What is applied, as one file.
fn rendered(home: &Home) -> PathBuf {
    let kustomize = home.command(program("kubectl")).args(["kustomize"]);
    let text = kustomize.args([ours("deploy/kubernetes")]).run().ok().stdout;
    home.write("rendered.yaml", text)
}

/// The objects.
fn objects(home: &Home) -> Vec<Value> {
    let load =
        "import json,sys,yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = home.command(python_program("python")).args(["-c", load]);
    let objects = python.args([rendered(home)]).run().ok().json();
    objects.as_array().unwrap().clone()
}

#[track_caller]
fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let named = |object: &&Value| {
        let its = object["metadata"]["name"].as_str().unwrap();
        object["kind"] == kind && (its == name || its.starts_with(&format!("{name}-")))
    };
    objects.iter().find(named).unwrap_or_else(|| panic!("{kind} {name}"))
}

#[test]
fn kubernetes_knows_every_field_of_the_manifests() {
    let home = Home::new();
    for file in [rendered(&home), ours("deploy/kubernetes/token-review.yaml")] {
        let validate = home.command(python_program("kubernetes-validate"));
        let validate = validate.args(["--strict", "-k", "1.34"]);
        validate.args([file]).run().ok();
    }
}

#[test]
fn manifests_keep_a_replica_ready_and_give_it_nothing_that_it_does_not_need() {
    let home = Home::new();
    let objects = objects(&home);
    let deployment = &one(&objects, "Deployment", "tmpcred-broker")["spec"];
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(deployment["replicas"].as_u64().unwrap() >= 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let budget = &one(&objects, "PodDisruptionBudget", "tmpcred-broker")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    for selects in [budget, &one(&objects, "NetworkPolicy", "tmpcred-broker")["spec"]] {
        let selector = selects.get("selector").or(selects.get("podSelector")).unwrap();
        assert_eq!(selector["matchLabels"], deployment["template"]["metadata"]["labels"]);
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let wait = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(wait > 0 && grace >= wait + END, "{grace}");

    let account = one(&objects, "ServiceAccount", "tmpcred-broker");
    for said in [account, pod] {
        assert_eq!(said["automountServiceAccountToken"], false);
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    // Where it may write all the same: in memory.
    let mounts = container["volumeMounts"].as_array().unwrap().iter();
    let written: Vec<_> = mounts.filter(|mount| mount["readOnly"] != true).collect();
    let [tmp] = written[..] else { panic!("{written:?}") };
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == tmp["name"]).unwrap();
    assert_eq!(
        (&tmp["mountPath"], &volume["emptyDir"]["medium"]),
        (&json!("/tmp"), &json!("Memory"))
    );
    // The user of the image, which owns nothing in it.
    let image = std::fs::read_to_string(ours("deploy/container/Containerfile")).unwrap();
    let user = &pod["securityContext"]["runAsUser"];
    assert!(image.contains(&format!("USER {user}:{user}")), "{user}");
    assert!(objects.iter().all(|object| object["kind"] != "Secret"));
}

#[test]
fn the_log_is_verified_by_what_the_broker_has_and_nobody_takes_that_for_a_replica() {
    let home = Home::new();
    let objects = objects(&home);
    let deployment = &one(&objects, "Deployment", "tmpcred-broker")["spec"];
    let replica = &deployment["template"]["spec"];
    let job = &one(&objects, "CronJob", "tmpcred-broker-verify")["spec"]["jobTemplate"]["spec"];
    let pod = &job["template"]["spec"];
    for same in [
        "serviceAccountName",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "securityContext",
    ] {
        assert!(!pod[same].is_null() && pod[same] == replica[same], "{same}: {}", pod[same]);
    }
    let (container, broker) = (&pod["containers"][0], &replica["containers"][0]);
    for same in ["image", "env", "securityContext", "resources", "volumeMounts"] {
        assert!(!container[same].is_null() && container[same] == broker[same], "{same}");
    }
    // Its files are among those of a replica, by the same names; the key of its certificate is not.
    let sources =
        |pod: &Value| pod["volumes"][0]["projected"]["sources"].as_array().unwrap().clone();
    let (few, all) = (sources(pod), sources(replica));
    assert!(few.iter().all(|source| all.contains(source)), "{few:?}");
    assert!(!Value::from(few).to_string().contains("tls.key"));
    // No Service sends it requests, no budget counts it, and it reaches no more than a replica.
    let labels = &job["template"]["metadata"]["labels"];
    assert_ne!(labels, &deployment["template"]["metadata"]["labels"]);
    let [policy, brokers] = ["tmpcred-broker-verify", "tmpcred-broker"].map(|name| {
        let named = |object: &&Value| object["metadata"]["name"] == name;
        let mut policies = objects.iter().filter(|object| object["kind"] == "NetworkPolicy");
        &policies.find(named).unwrap()["spec"]
    });
    assert_eq!(&policy["podSelector"]["matchLabels"], labels);
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(policy.get("ingress").is_none_or(|rules| rules == &json!([])), "{policy}");
    let reached = policy["egress"].as_array().unwrap();
    assert!(reached.iter().all(|rule| brokers["egress"].as_array().unwrap().contains(rule)));
    // Who is told that it failed need not wait for another try where something is wrong.
    let code = &job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"];
    assert_eq!(code, &json!([tmpcred::error::exit_code::VERIFICATION]));
}

/// The volume of the Pod, as the kubelet makes it.
struct Volume {
    path: PathBuf,
    versions: std::cell::Cell<u32>,
}

impl Volume {
    /// Puts these files there in one step.
    fn put(&self, files: &[(&str, String)]) {
        let version = self.versions.get();
        self.versions.set(version + 1);
        let directory = self.path.join(format!("..{version}"));
        std::fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            let file = directory.join(name);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o440)).unwrap();
            let shown = self.path.join(name);
            if !shown.is_symlink() {
                symlink(format!("..data/{name}"), shown).unwrap();
            }
        }
        let new = self.path.join("..data_tmp");
        symlink(format!("..{version}"), &new).unwrap();
        std::fs::rename(new, self.path.join("..data")).unwrap();
    }
}

struct Replica {
    volume: Volume,
    config: String,
    url: String,
    metrics: String,
    _running: Option<Running>,
}

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// One replica, of which the addresses, the database and the keys of its issuer are others than
/// in the manifest.
fn replica(
    home: &Home,
    objects: &[Value],
    (name, port, admin): (&str, u16, u16),
    (certificate, authority): (&ServerCertificate, &Authority),
    (postgres, jobs): (&Postgres, &Workloads),
) -> Replica {
    let config = one(objects, "ConfigMap", "tmpcred-broker")["data"]["broker.toml"].as_str();
    let mut config = config.unwrap().to_string();
    for (ours, theirs) in [
        ("0.0.0.0:8443", format!("127.0.0.1:{port}")),
        ("0.0.0.0:9443", format!("127.0.0.1:{admin}")),
        ("postgres://tmpcred@postgresql.postgresql.svc:5432/broker", postgres.url()),
        ("watch_every = \"10s\"", "watch_every = \"1s\"".into()),
        ("[trusted_issuer.corp]", format!("[trusted_issuer.corp]\njwks_file = {:?}", jobs.jwks)),
    ] {
        assert!(config.contains(ours), "{ours}\n{config}");
        config = config.replace(ours, &theirs);
    }
    let volume = Volume { path: home.directory(name), versions: Default::default() };
    let replica = Replica {
        volume,
        config,
        url: format!("https://127.0.0.1:{port}"),
        metrics: format!("http://127.0.0.1:{admin}/metrics"),
        _running: None,
    };
    let policy =
        one(objects, "ConfigMap", "tmpcred-broker-policy")["data"]["policy.cedar"].as_str();
    replica.fill(policy.unwrap(), certificate, authority);
    let file = replica.volume.path.join("broker.toml");
    tmpcred(home)
        .args(["broker", "policy", "check", "--strict", "--config"])
        .args([&file])
        .run()
        .ok();
    let running = tmpcred(home)
        .args(["broker", "serve", "--config"])
        .args([&file])
        .env(KEK_VARIABLE, KEK)
        .env("TMPCRED_BROKER_STORE_PASSWORD", PASSWORD)
        .limit(Duration::from_secs(240))
        .spawn();
    running.line_on_stderr("listens on");
    Replica { _running: Some(running), ..replica }
}

impl Replica {
    fn fill(&self, policy: &str, certificate: &ServerCertificate, authority: &Authority) {
        self.volume.put(&[
            ("broker.toml", self.config.clone()),
            ("policy.cedar", policy.into()),
            ("tls.crt", text(&certificate.certificate)),
            ("tls.key", text(&certificate.key)),
            ("postgresql-ca.crt", text(&authority.pem())),
        ]);
    }

    fn asked(&self, http: &mut Http, assertion: &str) -> (u16, Value) {
        let form = exchange(assertion, API, "deploy");
        let reply = http.form(&format!("{}/token", self.url), &form).unwrap();
        (reply.status, reply.json())
    }
}

#[test]
fn two_replicas_run_by_the_manifests_and_take_what_is_exchanged_in_their_volumes() {
    let home = Home::new();
    let objects = objects(&home);
    let (authority, next) = (Authority::new(), Authority::new());
    let mut postgres = Postgres::start();
    postgres.end();
    postgres.speak_tls(&authority.certify("localhost"));
    postgres.begin();
    let jobs = Workloads::of("https://login.example.com", &home);
    let certificate = authority.certify("127.0.0.1");
    let [first, second] = ["first", "second"].map(|name| {
        let place = (name, free_port(), free_port());
        replica(&home, &objects, place, (&certificate, &authority), (&postgres, &jobs))
    });
    let mut http = Http::trusting(&authority.pem());
    let container =
        &one(&objects, "Deployment", "tmpcred-broker")["spec"]["template"]["spec"]["containers"][0];
    for replica in [&first, &second] {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["port"], &get["scheme"]), (&json!("https"), &json!("HTTPS")));
            let url = format!("{}{}", replica.url, get["path"].as_str().unwrap());
            wait_until(probe, SOON, || (http.get(&url).ok()?.status == 200).then_some(()));
        }
        assert_eq!(Http::new().get(&replica.metrics).unwrap().status, 200);
    }

    let claims = json!({"azp": "tmpcred", "client_id": "tmpcred", "groups": ["platform"]});
    let assertion = jobs.assertion("alice", "https://broker.example.com", &claims);
    let (status, granted) = first.asked(&mut http, &assertion);
    assert_eq!(status, 200, "{granted}");
    let token = granted["access_token"].as_str().unwrap();
    let asked = http.form_as(token, &format!("{}/introspect", second.url), &[("token", token)]);
    assert_eq!(asked.unwrap().json()["active"], true, "one broker");

    // The audit log is verified by fewer files, in a Pod of its own.
    let job = &one(&objects, "CronJob", "tmpcred-broker-verify")["spec"]["jobTemplate"]["spec"];
    let verify = &job["template"]["spec"]["containers"][0];
    let volume = Volume { path: home.directory("verify"), versions: Default::default() };
    let files =
        [("broker.toml", first.config.clone()), ("postgresql-ca.crt", text(&authority.pem()))];
    volume.put(&files);
    let args = verify["args"].as_array().unwrap().iter().map(|arg| {
        let arg = arg.as_str().unwrap();
        arg.replace("/etc/tmpcred-broker", volume.path.to_str().unwrap())
    });
    let verified = wait_until("a log that is signed", SOON, || {
        let run = tmpcred(&home).args(args.clone()).env(KEK_VARIABLE, KEK);
        let run = run.env("TMPCRED_BROKER_STORE_PASSWORD", PASSWORD).run();
        (run.code == Some(0)).then_some(run.stdout)
    });
    assert!(verified.contains("as the broker sealed it"), "{verified}");

    // Another policy, and a certificate of another authority, at one of them.
    let policy = text(&first.volume.path.join("policy.cedar"));
    let policy = policy + "@id(\"nobody\") forbid (principal, action, resource);";
    first.fill(&policy, &next.certify("127.0.0.1"), &authority);
    let mut trusting = wait_until("the new certificate", SOON, || {
        let mut http = Http::trusting(&next.pem());
        http.get(&format!("{}/healthz", first.url)).is_ok().then_some(http)
    });
    let denied = wait_until("the new policy", SOON, || {
        let (status, denied) = first.asked(&mut trusting, &assertion);
        (status == 400).then_some(denied)
    });
    assert_eq!(denied["error"], "access_denied");
    assert_eq!(second.asked(&mut http, &assertion).0, 200);
}
