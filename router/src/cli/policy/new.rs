//! `weir policy new`: a policy to begin with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, ValueHint};
use weir_policy::harness::templates::{self, TEMPLATES, Template};

use super::common::HookArg;
use crate::client::Streams;

/// Arguments of `weir policy new`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir policy new geo                     a route policy in Rust
  weir policy new last-wins --hook resolve
  weir policy new lanes --lang python --hook prioritize

Rust serves every hook; JavaScript begins with resolve, Python with prioritize, C with route. What is
written is a whole policy that builds and passes its cases: change it from there.

Exit status: 0 written; 2 error.")]
pub(super) struct NewArgs {
    /// Directory of the new policy; its last part is the policy's name
    #[arg(value_name = "NAME", value_hint = ValueHint::DirPath)]
    dir: PathBuf,

    /// The language
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,

    /// The hook that it serves [default: the language's first]
    #[arg(long, value_enum)]
    hook: Option<HookArg>,
}

/// A language that policies are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// Fast enough for every sample of a busy storage
    Rust,
    /// QuickJS inside: for conflicts and slow links
    Js,
    /// CPython inside: for slow links
    Python,
    /// As fast as Rust
    C,
}

impl Lang {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
            Self::C => "c",
        }
    }
}

/// Runs `weir policy new`.
pub(super) fn new(args: &NewArgs, streams: &mut Streams<'_>) -> Result<ExitCode> {
    let name = args.dir.file_name().unwrap_or_default().to_string_lossy();
    templates::check_name(&name).map_err(anyhow::Error::msg)?;
    let template = choose(args.lang, args.hook)?;
    let dir = args.dir.display();
    if args.dir.exists() {
        bail!("{dir} is there already");
    }
    for file in template.files(&name) {
        let path = args.dir.join(&file.path);
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, &file.content))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (hook, lang) = (template.hook, args.lang.name());
    writeln!(streams.out, "{dir}: a {hook} policy in {lang}")?;
    writeln!(streams.out, "next: weir policy test {dir}")?;
    Ok(ExitCode::SUCCESS)
}

fn choose(lang: Lang, hook: Option<HookArg>) -> Result<&'static Template> {
    let mut of_lang = TEMPLATES
        .iter()
        .filter(|template| template.lang == lang.name());
    let hooks: Vec<&str> = of_lang
        .clone()
        .map(|template| template.hook.name())
        .collect();
    let found = match hook.map(weir_policy::Hook::from) {
        None => of_lang.next(),
        Some(hook) => of_lang.find(|template| template.hook == hook),
    };
    match found {
        Some(template) => Ok(template),
        None => bail!(
            "there is no template in {} for that hook, there is one for {}: begin with it and change \
             the world that it names, or take --lang rust",
            lang.name(),
            hooks.join(" and ")
        ),
    }
}
