//! A client that is not ours: confluent-kafka for Python, in the environment that `tests/setup` makes.

use std::path::Path;
use std::process::{Command, Stdio};

use std::io::Write as _;

/// A plain publish, in the five lines that the README gives.
const PUBLISH: &str = r"
import hashlib, sys
from confluent_kafka import Producer
bootstrap, topic, model, version = sys.argv[1:]
value = sys.stdin.buffer.read()
producer = Producer({'bootstrap.servers': bootstrap})
producer.produce(topic, key=model, value=value, headers={
    'sha256': hashlib.sha256(value).hexdigest(), 'version': version})
assert producer.flush(30) == 0
";

/// As above, with whatever headers and configuration another program may have.
const PRODUCE: &str = r"
import json, sys
from confluent_kafka import Producer
bootstrap, topic, model, partition, headers, config = sys.argv[1:]
producer = Producer({'bootstrap.servers': bootstrap, **json.loads(config)})
producer.produce(topic, key=model, value=sys.stdin.buffer.read(), headers=json.loads(headers),
                 partition=int(partition))
assert producer.flush(30) == 0
";

const ACL: &str = r"
import sys
from confluent_kafka.admin import *
bootstrap, action, topic, principal = sys.argv[1:]
def acl(operation, kind=AclBinding):
    return kind(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, principal, '*', operation,
                AclPermissionType.ALLOW)
admin = AdminClient({'bootstrap.servers': bootstrap})
if action == 'delete':
    done = admin.delete_acls([acl(AclOperation.ANY, AclBindingFilter)])
else:
    done = admin.create_acls([acl(AclOperation.DESCRIBE if action == 'create-describe' else AclOperation.ALL)])
for future in done.values():
    future.result(30)
";

/// Publishes a file in one record.
pub(crate) fn publish(bootstrap: &str, topic: &str, model: &str, version: &str, file: &[u8]) {
    python(PUBLISH, &[bootstrap, topic, model, version], file);
}

/// Writes one record under the name of a model; a `partition` of -1 leaves it to the partitioner.
pub(crate) fn produce(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    headers: &[(&str, &str)],
    config: &[(&str, &str)],
    value: &[u8],
) {
    let json = |pairs: &[(&str, &str)]| {
        serde_json::to_string(&pairs.iter().copied().collect::<std::collections::BTreeMap<_, _>>()).unwrap()
    };
    let (partition, headers, config) = (partition.to_string(), json(headers), json(config));
    python(PRODUCE, &[bootstrap, topic, "fraud", &partition, &headers, &config], value);
}

/// Creates or deletes a permission for a topic.
pub(crate) fn acl(bootstrap: &str, action: &str, topic: &str, principal: &str) {
    python(ACL, &[bootstrap, action, topic, principal], b"");
}

fn python(script: &str, arguments: &[&str], input: &[u8]) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/bin/python");
    let mut process = Command::new(python)
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tests need confluent-kafka for Python: run tests/setup");
    process.stdin.take().unwrap().write_all(input).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "python: {}", String::from_utf8_lossy(&output.stderr));
}
