//! Publishes models to a topic, and manages what is published.
//!
//! ```text
//! publish fraud model.onnx --version 7 --label team=risk
//! publish list
//! publish rollback fraud 6
//! publish withdraw fraud
//! publish create-topic --partitions 1
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use modelswap::publish::{Listing, Progress, PublishOptions, PublishedState, Publisher, Step};
use modelswap::topic::{KafkaTopic, TopicError, TopicSettings};
use modelswap::{ErrorKind, Interface, Release};
use tokio::signal::unix::{SignalKind, signal};

/// Publishes a model to a Kafka topic, or manages what is published there.
#[derive(Parser)]
#[command(name = "publish", subcommand_negates_reqs = true)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    publish: Option<PublishArgs>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Connection {
    /// The brokers, as host:port, separated by commas
    #[arg(long, global = true, default_value = "localhost:9092")]
    brokers: String,
    /// The topic of models
    #[arg(long, global = true, default_value = "models")]
    topic: String,
    /// A configuration property of librdkafka; any number of them
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
}

#[derive(Args)]
struct PublishArgs {
    /// The name of the model
    #[arg(required = true)]
    model: String,
    /// The model file
    #[arg(required = true)]
    file: PathBuf,
    /// The version; the start of the file's sha256 unless given
    #[arg(long)]
    version: Option<String>,
    /// The format (onnx, tensorflow, ..); told by content unless given
    #[arg(long)]
    format: Option<String>,
    /// The inputs to feed, by name
    #[arg(long, value_delimiter = ',')]
    inputs: Vec<String>,
    /// The outputs to compute, by name
    #[arg(long, value_delimiter = ',')]
    outputs: Vec<String>,
    /// The signature of a SavedModel
    #[arg(long)]
    signature: Option<String>,
    /// Golden samples: a JSON file of inputs and expected outputs
    #[arg(long)]
    samples: Option<PathBuf>,
    /// A label; any number of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// How many artifacts to keep on the topic, this one included
    #[arg(long, default_value_t = 2)]
    keep: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Lists what is published
    List,
    /// Makes an earlier release the newest one again
    Rollback {
        /// The name of the model
        model: String,
        /// The version to roll back to; the one before the newest unless given
        version: Option<String>,
    },
    /// Withdraws a model
    Withdraw {
        /// The name of the model
        model: String,
    },
    /// Creates the topic, with the right configuration
    CreateTopic {
        /// The number of partitions
        #[arg(long, default_value_t = 1)]
        partitions: i32,
        /// The number of replicas; -1 for the cluster's default
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        replication: i32,
        /// A configuration property of the topic; any number of them
        #[arg(short = 'c', long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        settings: Vec<(String, String)>,
    },
}

/// What a shell reports of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                let _ = write!(text, ": {error}");
                source = error.source();
            }
            eprintln!("error: {text}");
            let kind = error.downcast_ref::<modelswap::Error>().map(modelswap::Error::kind);
            if kind == Some(ErrorKind::Cancelled) { INTERRUPTED.into() } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let topic = cli.connection.topic();
    topic.check()?;
    let stop = stop_on_signal()?;
    let publisher = Publisher::new(Arc::new(topic.clone())).stop_when(move || stop.load(Ordering::Relaxed));
    match (cli.command, cli.publish) {
        (Some(Command::List), _) => publisher.list()?.iter().for_each(print_listing),
        (Some(Command::Rollback { model, version }), _) => {
            let release = publisher.rollback(&model, version.as_deref())?;
            println!("rolled back to {release}, {}", size(&release));
        }
        (Some(Command::Withdraw { model }), _) => {
            publisher.withdraw(&model)?;
            println!("withdrew {model}");
        }
        (Some(Command::CreateTopic { partitions, replication, settings: own }), _) => {
            let mut settings = TopicSettings::default();
            settings.partitions = partitions;
            settings.replication = replication;
            settings.config.extend(own);
            topic.create(&settings)?;
            println!("created topic {}", cli.connection.topic);
        }
        (None, Some(args)) => {
            warn_of_problems(&topic)?;
            publish(publisher, args)?;
        }
        (None, None) => return Err("expected MODEL FILE or a subcommand; see --help".into()),
    }
    Ok(())
}

/// True after the first SIGINT or SIGTERM, so that no transaction stays open; the second one ends the
/// program.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = tokio::signal::ctrl_c() => {}
                }
                if told.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED.into());
                }
                eprintln!("stopping; once more to stop at once");
            }
        });
    });
    Ok(stop)
}

fn publish(publisher: Publisher, args: PublishArgs) -> Result<(), Box<dyn Error>> {
    let (model, file) = (args.model.clone(), args.file.clone());
    let options = args.options()?;
    let bar = ProgressBar::new(0);
    let progress = bar.clone();
    let result = publisher.on_progress(move |p| show(&progress, p)).publish(&model, file, options);
    bar.finish_and_clear();
    let release = result?;
    println!("published {release}, {}, sha256 {}", size(&release), release.artifact.sha256);
    Ok(())
}

impl Connection {
    fn topic(&self) -> KafkaTopic {
        let topic = KafkaTopic::new(&self.topic).config("bootstrap.servers", &self.brokers);
        self.config.iter().fold(topic, |topic, (key, value)| topic.config(key, value))
    }
}

impl PublishArgs {
    fn options(self) -> Result<PublishOptions, Box<dyn Error>> {
        let mut interface = Interface::default();
        interface.inputs = self.inputs;
        interface.outputs = self.outputs;
        interface.signature = self.signature;
        let mut options = PublishOptions::default().keep(self.keep);
        options.version = self.version;
        options.format = self.format;
        options.interface = interface;
        options.labels = self.labels.into_iter().collect();
        options.samples = self.samples.as_deref().map(samples).transpose()?;
        Ok(options)
    }
}

fn samples(path: &Path) -> Result<serde_json::Value, Box<dyn Error>> {
    let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(modelswap::load::samples::read_value(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// A topic that loses models is worth a word; a broker that does not tell is no reason to stop, one
/// that does not answer is.
fn warn_of_problems(topic: &KafkaTopic) -> Result<(), TopicError> {
    match topic.describe() {
        Ok(description) => description.problems().iter().for_each(|p| eprintln!("warning: {p}")),
        Err(error @ (TopicError::Unavailable { .. } | TopicError::Missing { .. })) => return Err(error),
        Err(_) => {}
    }
    Ok(())
}

fn show(bar: &ProgressBar, progress: Progress) {
    let (what, template) = match progress.step {
        Step::Check => ("checking the model", "{spinner} {msg}"),
        Step::Scan => ("reading the topic", "{spinner} {msg}: {pos} records"),
        Step::Upload => ("uploading", "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
        Step::Commit => ("committing", "{spinner} {msg}"),
        _ => ("removing old chunks", "{spinner} {msg}"),
    };
    if bar.message() != what {
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what);
        bar.set_length(progress.total);
    }
    bar.set_position(progress.done);
}

fn print_listing(listing: &Listing) {
    match &listing.state {
        PublishedState::Withdrawn => println!("{}  withdrawn", listing.model),
        PublishedState::Refused(reason) => println!("{}  refused by every reader: {reason}", listing.model),
        _ => println!("{}", listing.model),
    }
    for (i, listed) in listing.releases.iter().enumerate() {
        let release = &listed.release;
        let mark = match (i, listed.complete) {
            (_, false) => "no longer on the topic",
            (0, true) => "newest",
            (_, true) => "can be rolled back to",
        };
        let mut labels = String::new();
        for (key, value) in &release.labels {
            let _ = write!(labels, "  {key}={value}");
        }
        println!(
            "  {}  {} ago  {}  {}  sha256 {}  {mark}{labels}",
            release.version,
            age(release.time_ms),
            release.position,
            size(release),
            release.artifact.sha256.short(),
        );
    }
}

fn size(release: &Release) -> String {
    HumanBytes(release.artifact.bytes).to_string()
}

fn age(time_ms: i64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(u64::try_from(time_ms).unwrap_or(0));
    HumanDuration(SystemTime::now().duration_since(then).unwrap_or_default()).to_string()
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected key=value".into()),
    }
}
