//! A real Kafka broker for the tests: its jars come from Maven once, it runs on free loopback ports,
//! and it is stopped at the end whatever happens. `KAFKA_BOOTSTRAP` names another one to use instead.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a broker may take until it listens.
const START: Duration = Duration::from_secs(90);

/// The address of the broker that all tests of this process share.
pub(crate) fn shared() -> &'static str {
    static SHARED: OnceLock<(String, Option<Broker>)> = OnceLock::new();
    let (bootstrap, _) = SHARED.get_or_init(|| match std::env::var("KAFKA_BOOTSTRAP") {
        Ok(bootstrap) => (bootstrap, None),
        // A static is never dropped: the broker ends when this process no longer holds its input.
        Err(_) => {
            let broker = Broker::start();
            (broker.bootstrap().to_owned(), Some(broker))
        }
    });
    bootstrap
}

/// A broker of one's own, to stop and to start again.
pub(crate) struct Broker {
    directory: PathBuf,
    bootstrap: String,
    /// A listener of its own, and the port at which it says that it is reached.
    distant: [u16; 2],
    process: Option<Child>,
}

impl Broker {
    /// Formats the storage of a new broker and starts it.
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = target().join(format!("kafka-data/{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [port, controller, distant, line] = free_ports();
        let bootstrap = format!("127.0.0.1:{port}");
        let properties = include_str!("server.properties")
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER@", &controller.to_string())
            .replace("@DISTANT@", &distant.to_string())
            .replace("@LINE@", &line.to_string())
            .replace("@DIRECTORY@", directory.to_str().unwrap());
        fs::write(directory.join("server.properties"), properties).unwrap();
        let format = java(&[
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            "bW9kZWxzd2FwLXRlc3RzLQ",
            "-c",
        ])
        .arg(directory.join("server.properties"))
        .output()
        .unwrap();
        assert!(format.status.success(), "storage format: {}", String::from_utf8_lossy(&format.stderr));
        let mut broker = Self { directory, bootstrap, distant: [distant, line], process: None };
        broker.resume();
        broker
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The port of a listener, and the one on loopback where its clients look for it: somebody has to
    /// listen there and pass on what comes.
    #[allow(dead_code, reason = "the benches are never far away")]
    pub(crate) const fn distant(&self) -> [u16; 2] {
        self.distant
    }

    /// Kills the broker; what it has written stays.
    pub(crate) fn kill(&mut self) {
        fs::write(self.directory.join("keep"), "").unwrap();
        self.end();
    }

    /// Starts a broker that was killed.
    pub(crate) fn resume(&mut self) {
        let server = java(&["kafka.Kafka"]);
        let mut run = Command::new(source().join("run"));
        run.arg(&self.directory).arg(server.get_program()).args(server.get_args());
        run.arg(self.directory.join("server.properties")).stdin(Stdio::piped());
        self.process = Some(run.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(&self.bootstrap).is_err() {
            assert!(start.elapsed() < START, "the broker does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.directory.join("keep"));
    }

    fn log(&self) -> String {
        let mut log = String::new();
        let _ =
            fs::File::open(self.directory.join("broker.log")).and_then(|mut f| f.read_to_string(&mut log));
        log
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

fn java(arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", source().join("log4j2.yaml").display()));
    command.arg("-cp").arg(format!("{}/*", jars().display()));
    command.args(arguments);
    command
}

/// The folder of Kafka's jars, which Maven fills once.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let folder = target().join("kafka-libs");
        fs::create_dir_all(&folder).unwrap();
        // Another test process may be at it.
        let lock = fs::File::create(target().join("kafka-libs.lock")).unwrap();
        lock.lock().unwrap();
        let complete = folder.join("complete");
        if !complete.exists() {
            let copy = Command::new("mvn")
                .args(["-q", "-B", "-ntp", "-f"])
                .arg(source().join("pom.xml"))
                .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
                .arg(format!("-DoutputDirectory={}", folder.display()))
                .output()
                .expect("the tests on real Kafka need Maven and Java 17: see tests/run");
            assert!(copy.status.success(), "mvn: {}", String::from_utf8_lossy(&copy.stdout));
            fs::write(complete, "").unwrap();
        }
        folder
    })
}

fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/broker")
}

/// The target directory, wherever Cargo was told to have it.
fn target() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    path.pop();
    path
}
