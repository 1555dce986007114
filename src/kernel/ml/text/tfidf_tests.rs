use crate::kernel::Attribute;
use crate::kernel::ml::common::testing::{build, close, floats, ints, one, strings, text, words};
use crate::tensor::Tensor;

type Settings = Vec<(&'static str, Attribute)>;

fn settings(mode: &str, [shortest, longest, skips]: [i64; 3]) -> Settings {
    vec![
        ("mode", text(mode)),
        ("min_gram_length", Attribute::Int(shortest)),
        ("max_gram_length", Attribute::Int(longest)),
        ("max_skip_count", Attribute::Int(skips)),
    ]
}

/// The pool of the specification's examples, its columns turned round.
fn numbers(mode: &str, lengths: [i64; 3]) -> Settings {
    let mut all = settings(mode, lengths);
    all.extend([
        ("ngram_counts", ints(&[0, 4])),
        ("ngram_indexes", ints(&[6, 5, 4, 3, 2, 1, 0])),
        ("pool_int64s", ints(&[2, 3, 5, 4, 5, 6, 7, 8, 6, 7])),
    ]);
    all
}

fn rows() -> Tensor {
    Tensor::new(&[2, 6], vec![1_i64, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8]).unwrap()
}

/// The expected numbers are onnxruntime 1.32's.
#[test]
fn counts_and_weights_are_those_of_the_mode() {
    let weights = || ("weights", floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
    let cases = [
        ("TF", [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]),
        ("IDF", [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 7.0, 0.0, 5.0, 0.0, 3.0, 0.0, 0.0]),
        ("TFIDF", [0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 0.0, 7.0, 0.0, 5.0, 0.0, 3.0, 0.0, 0.0]),
    ];
    for (mode, expected) in cases {
        let mut all = numbers(mode, [1, 2, 1]);
        all.push(weights());
        close(&one(":TfIdfVectorizer", all, rows()).unwrap(), &[2, 7], &expected);
    }
}

#[test]
fn without_weights_idf_says_whether_and_tfidf_how_often() {
    let counted = |mode| {
        one(":TfIdfVectorizer", numbers(mode, [1, 1, 0]), rows().view().rows(0..1).unwrap().to_tensor())
    };
    close(&counted("IDF").unwrap(), &[1, 7], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    close(&counted("TFIDF").unwrap(), &[1, 7], &[0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
}

/// From the backend test `tfidfvectorizer_tf_onlybigrams_skip5` of the specification.
#[test]
fn skips_reach_over_tokens_between() {
    let mut all = settings("TF", [2, 2, 5]);
    all.extend([
        ("ngram_counts", ints(&[0, 4])),
        ("ngram_indexes", ints(&[0, 1, 2, 3, 4, 5, 6])),
        ("pool_int64s", ints(&[2, 3, 5, 4, 5, 6, 7, 8, 6, 7])),
    ]);
    let x = Tensor::vector(vec![1_i32, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8]);
    close(&one(":TfIdfVectorizer", all, x).unwrap(), &[7], &[0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 1.0]);
}

fn text_pool() -> Settings {
    let mut all = settings("TF", [2, 2, 0]);
    all.extend([
        ("ngram_counts", ints(&[0, 2])),
        ("ngram_indexes", ints(&[0, 1, 2, 3])),
        ("pool_strings", strings(&["a", "b", "b", "c", "c", "c"])),
    ]);
    all
}

#[test]
fn strings_are_tokens_too() {
    let x = words(&[2, 3], &["a", "b", "c", "b", "c", "c"]);
    close(
        &one(":TfIdfVectorizer", text_pool(), x).unwrap(),
        &[2, 4],
        &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
    );
}

#[test]
fn no_rows_and_no_tokens_are_fine() {
    close(&one(":TfIdfVectorizer", text_pool(), words(&[0, 3], &[])).unwrap(), &[0, 4], &[]);
    close(&one(":TfIdfVectorizer", text_pool(), words(&[1, 0], &[])).unwrap(), &[1, 4], &[0.0; 4]);
}

#[test]
fn attributes_that_contradict_are_refused() {
    let with = |name: &'static str, value: Attribute| {
        let mut all = text_pool();
        all.retain(|(other, _)| *other != name);
        all.push((name, value));
        build(":TfIdfVectorizer", all).unwrap_err().to_string()
    };
    assert_eq!(with("mode", text("TF2")), "attribute `mode`: expected TF, IDF or TFIDF, found Some(\"TF2\")");
    assert_eq!(with("weights", floats(&[1.0])), "attribute `weights`: expected 4 values, found 1");
    assert_eq!(
        with("ngram_counts", ints(&[0, 3])),
        "attribute `ngram_counts`: expected whole 2-grams within the 6 tokens of the pool"
    );
    assert_eq!(
        with("ngram_indexes", ints(&[0, 1, -1, 3])),
        "attribute `ngram_indexes`: expected a column of n-gram 2, found Some(-1)"
    );
    assert_eq!(
        with("min_gram_length", Attribute::Int(0)),
        "attribute `min_gram_length`: expected 1 or more, found Some(0)"
    );
    assert_eq!(
        with("pool_strings", strings(&["a", "b", "c", "c", "c", "c"])),
        "expected n-grams that differ, found one twice in the pool"
    );
    assert_eq!(with("pool_int64s", ints(&[1])), "expected `pool_int64s` or `pool_strings`, found both");
}

#[test]
fn a_column_far_out_is_over_the_budget_and_allocates_nothing() {
    let mut all = text_pool();
    all.retain(|(name, _)| *name != "ngram_indexes");
    all.push(("ngram_indexes", ints(&[0, 1, 2, i64::MAX - 1])));
    let error = one(":TfIdfVectorizer", all, words(&[1, 1], &["a"])).unwrap_err().to_string();
    assert!(error.ends_with("is over the memory budget"), "{error}");
}

#[test]
fn numbers_where_words_are_wanted_are_refused() {
    let error = one(":TfIdfVectorizer", text_pool(), rows()).unwrap_err().to_string();
    assert_eq!(error, "TfIdfVectorizer expected string, found i64");
}
