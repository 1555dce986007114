"""Makes the models of the benches, and rows for them to score.

    python benches/models.py target/bench/models

writes NAME.onnx, NAME.f32 (rows of the training distribution, raw little-endian), models.json (what
there is) and pipeline.joblib (what MLServer serves). What is there already is not made again.
"""

import json
import pathlib
import sys

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

ROWS = 4096
OPSET = {"": 17, "ai.onnx.ml": 3}


def sklearn_model(estimator, x):
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    return to_onnx(estimator, x[:1], target_opset=OPSET, options=options)


def tabular():
    x, y = make_classification(
        n_samples=9000, n_features=30, n_informative=12, n_redundant=4, flip_y=0.05, random_state=7
    )
    return x.astype(np.float32), y


def forest(depth):
    x, y = tabular()
    # As many rows as make some 76,000 nodes of 100 trees that grow until their leaves are pure.
    fit = slice(0, 4430)
    estimator = RandomForestClassifier(100, max_depth=depth, random_state=1, n_jobs=2).fit(x[fit], y[fit])
    nodes = sum(tree.tree_.node_count for tree in estimator.estimators_)
    print(f"  {nodes} nodes")
    return sklearn_model(estimator, x), x


def boosting():
    x, y = tabular()
    return sklearn_model(GradientBoostingClassifier(n_estimators=100, random_state=1).fit(x, y), x), x


def iris():
    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    return sklearn_model(LogisticRegression(max_iter=1000).fit(x, y), x), x


def pipeline_estimator():
    x, y = tabular()
    return make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression(max_iter=1000)).fit(x, y), x


def pipeline():
    estimator, x = pipeline_estimator()
    return sklearn_model(estimator, x), x


def regression():
    x, y = tabular()
    return sklearn_model(make_pipeline(StandardScaler(), Ridge()).fit(x, y), x), x


class Graph:
    """An ONNX graph in the making, one node after the other."""

    def __init__(self, shape):
        self.random = np.random.default_rng(11)
        self.nodes, self.weights, self.last, self.shape = [], [], "input", shape

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        scale = 1.0 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 16)
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, values, kind):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def add(self, operator, *inputs, outputs=1, use=0, **attributes):
        names = [f"t{len(self.nodes)}_{i}" if i == use else "" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, [self.last, *inputs], names, **attributes))
        self.last = names[use]
        return self

    def dense(self, wide, narrow):
        return self.add("Gemm", self.weight(narrow, wide), self.weight(narrow), transB=1)

    def model(self, width):
        self.nodes[-1].output[0] = "score"
        graph = helper.make_graph(
            self.nodes,
            "bench",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *self.shape])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", width])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model, self.random.standard_normal((ROWS, *self.shape)).astype(np.float32)


def mlp(*widths):
    graph = Graph([widths[0]])
    for wide, narrow in zip(widths, widths[1:]):
        graph.dense(wide, narrow).add("Sigmoid" if narrow == widths[-1] else "Relu")
    return graph.model(widths[-1])


def cnn():
    graph = Graph([1, 28, 28])
    graph.add("Conv", graph.weight(16, 1, 3, 3), graph.weight(16), kernel_shape=[3, 3]).add("Relu")
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    graph.add("Conv", graph.weight(32, 16, 3, 3), graph.weight(32), kernel_shape=[3, 3]).add("Relu")
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Flatten")
    graph.dense(800, 10).add("Softmax")
    return graph.model(10)


def lstm():
    graph = Graph([16, 8])
    graph.add("Transpose", perm=[1, 0, 2])
    weights = graph.weight(1, 128, 8), graph.weight(1, 128, 32), graph.weight(1, 256)
    graph.add("LSTM", *weights, outputs=2, use=1, hidden_size=32)
    graph.add("Squeeze", graph.constant([0], np.int64))
    graph.dense(32, 1).add("Sigmoid")
    return graph.model(1)


MODELS = {
    "iris": iris,
    "pipeline": pipeline,
    "regression": regression,
    "forest": lambda: forest(None),
    "forest_depth_8": lambda: forest(8),
    "boosting": boosting,
    "mlp": lambda: mlp(30, 64, 32, 1),
    "cnn": cnn,
    "lstm": lstm,
    # A little less than the million bytes that a record may have.
    "mlp_1mb": lambda: mlp(30, 465, 465, 32, 1),
    "mlp_100mb": lambda: mlp(1024, 4096, 4096, 1024, 1),
}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        file = folder / f"{name}.onnx"
        if file.exists() and (folder / f"{name}.f32").exists():
            continue
        print(name)
        model, rows = make()
        file.write_bytes(model.SerializeToString())
        np.resize(rows, (ROWS, *rows.shape[1:])).tofile(folder / f"{name}.f32")
        print(f"  {file.stat().st_size} bytes")
    if not (folder / "pipeline.joblib").exists():
        joblib.dump(pipeline_estimator()[0], folder / "pipeline.joblib")
    (folder / "models.json").write_text(json.dumps(list(MODELS)))


main()
