//! TensorFlow's files: frozen graphs, SavedModels, and their text form.
