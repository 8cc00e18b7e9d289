//! The house law (CONTRIBUTING.md), kept as a test: the tree as it is on disk comes in, offences
//! go out, each as `path:line: what`. Every check also proves that it notices a planted offence.

mod files;
mod imports;
mod sizes;
mod source;
mod tree;
mod words;

use source::Source;
use tree::Tree;

/// Fails with every offence at once, so that one run shows all there is to mend.
fn clean(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} against the house law:\n{}", offences.len(), offences.join("\n"));
}

/// Runs a check of single files over the whole tree.
fn each(check: impl Fn(&Source) -> Vec<String>) {
    let tree = Tree::read();
    assert!(tree.sources.len() > 20, "the tree was not found");
    clean(tree.sources.iter().flat_map(check).collect());
}

#[test]
fn own_modules_are_imported_in_one_direction() {
    each(imports::own_modules);
}

#[test]
fn other_crates_stay_behind_their_doors() {
    each(imports::other_crates);
}

#[test]
fn the_domain_and_the_verifier_depend_on_little() {
    clean(Tree::read().texts.iter().flat_map(|(path, text)| imports::manifest(path, text)).collect());
}

#[test]
fn files_are_short() {
    each(sizes::files);
}

#[test]
fn functions_are_short() {
    each(sizes::functions);
}

#[test]
fn nothing_panics_by_habit() {
    each(words::panics);
}

#[test]
fn nothing_is_left_to_be_done() {
    each(words::unfinished);
}

#[test]
fn only_the_command_line_prints() {
    each(words::prints);
}

#[test]
fn clock_entropy_environment_and_spawn_have_one_door() {
    each(words::doors);
}

#[test]
fn types_are_named_for_what_they_are() {
    each(words::names);
}

#[test]
fn no_file_is_dead() {
    clean(files::dead(&Tree::read().sources));
}

#[test]
fn every_module_has_a_head() {
    each(files::head);
}

#[test]
fn files_are_named_plainly() {
    clean(Tree::read().paths.iter().flat_map(|path| files::name(path)).collect());
}

#[test]
fn rust_lives_in_src_crates_and_tests() {
    clean(Tree::read().paths.iter().flat_map(|path| files::place(path)).collect());
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    clean(Tree::read().texts.iter().flat_map(|(path, text)| words::machine(path, text)).collect());
}

#[test]
fn no_private_key_is_committed() {
    let tree = Tree::read();
    let texts = tree.texts.iter().flat_map(|(path, text)| words::private_keys(path, text));
    clean(texts.chain(tree.paths.iter().flat_map(|path| files::key_file(path))).collect());
}

#[test]
fn links_of_documents_lead_somewhere() {
    let tree = Tree::read();
    clean(tree.texts.iter().flat_map(|(path, text)| files::links(path, text, &|to| tree.has(to))).collect());
}
