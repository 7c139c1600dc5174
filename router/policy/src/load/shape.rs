//! What a compiler can digest: a small file can hold a function that costs the router gigabytes or
//! minutes to compile. Valid WebAssembly has limits for none of this, so there are ours, above what
//! toolchains make.
//!
//! They bound memory (the worst found takes 1.6 GB) and the time of one function (20 s). They
//! do not bound the time of a module: a file of many such functions takes minutes, and a compilation
//! cannot be cut short. So modules are compiled one after the other, on a thread that nobody waits for.

use wasmparser::{BinaryReaderError, FunctionBody, Operator, Parser, Payload};

use super::{Refusal, RefusalCode};

/// Functions of all modules in the file. The compiler keeps some 8 KB for even an empty one. Python's
/// interpreter has 30,000.
const FUNCTIONS_MAX: usize = 60_000;
/// Bytes of one function. The compiler takes up to 4 KB for each of them. The main loop of Python has
/// 427 KB (componentize-py 0.25); that of QuickJS, 54 KB.
const FUNCTION_BYTES_MAX: usize = 512 << 10;
/// Loops of one function, and loops in loops: compile time grows with the square of either. Toolchains
/// stay below a hundred, and below 30 in one another.
const LOOPS_MAX: usize = 2000;
const LOOP_DEPTH_MAX: usize = 100;
/// Nested blocks times locals of one function: the compiler may have to merge every local at the end
/// of every block. Interpreters reach some 100,000.
const MERGES_MAX: usize = 1 << 17;
/// Nested blocks of one function. A large `switch` has one for each case.
const BLOCK_DEPTH_MAX: usize = 5000;
/// Parameters and results of all types: each type may get code of its own that moves them.
const TYPE_VALUES_MAX: usize = 100_000;

/// Refuses what the compiler would choke on. `bytes` are valid. Costs one walk over all instructions.
pub(super) fn check(bytes: &[u8]) -> Result<(), Refusal> {
    let mut functions = 0;
    let mut type_values = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(types) => {
                for function in types.into_iter_err_on_gc_types() {
                    let function = function?;
                    type_values += function.params().len() + function.results().len();
                }
                at_most(
                    "parameters and results in all types",
                    type_values,
                    TYPE_VALUES_MAX,
                )?;
            }
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                at_most("functions", functions, FUNCTIONS_MAX)?;
                at_most(
                    "bytes in one function",
                    body.range().len(),
                    FUNCTION_BYTES_MAX,
                )?;
                let Nesting {
                    blocks,
                    loops,
                    all_loops,
                } = Nesting::of(&body)?;
                at_most("loops in one function", all_loops, LOOPS_MAX)?;
                at_most("loops in one another", loops, LOOP_DEPTH_MAX)?;
                at_most("blocks in one another", blocks, BLOCK_DEPTH_MAX)?;
                let merges = blocks.saturating_mul(locals(&body)?);
                at_most("blocks in one another times locals", merges, MERGES_MAX)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::TooLarge,
        format!(
            "the module has {count} {what}, {max} is the most that is compiled: split large functions, \
             or build with optimisation"
        ),
    ))
}

fn locals(body: &FunctionBody<'_>) -> Result<usize, BinaryReaderError> {
    let mut locals = 0;
    for group in body.get_locals_reader()? {
        locals += usize::try_from(group?.0).unwrap_or(usize::MAX);
    }
    Ok(locals)
}

/// How deep blocks and loops of a function lie in one another, and how many loops there are.
struct Nesting {
    blocks: usize,
    loops: usize,
    all_loops: usize,
}

impl Nesting {
    fn of(body: &FunctionBody<'_>) -> Result<Self, BinaryReaderError> {
        let mut deepest = Self {
            blocks: 0,
            loops: 0,
            all_loops: 0,
        };
        // Whether each open block is a loop, and how many are.
        let mut open = Vec::new();
        let mut loops = 0;
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::Loop { .. } => {
                    open.push(true);
                    loops += 1;
                    deepest.all_loops += 1;
                }
                Operator::Block { .. } | Operator::If { .. } => open.push(false),
                Operator::End => loops -= usize::from(open.pop().unwrap_or(false)),
                _ => {}
            }
            deepest.blocks = deepest.blocks.max(open.len());
            deepest.loops = deepest.loops.max(loops);
        }
        Ok(deepest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(wat: &str) -> Option<String> {
        let wasm = wat::parse_str(format!("(module {wat})")).unwrap();
        check(&wasm).err().map(|refusal| {
            assert_eq!(refusal.code, RefusalCode::TooLarge);
            refusal.message
        })
    }

    #[test]
    fn what_is_just_small_enough_passes() {
        let nested = |what: &str, count: usize| {
            format!(
                "(func {} {})",
                format!("{what} ").repeat(count),
                "end ".repeat(count)
            )
        };
        let with_locals = |count: usize| {
            nested("block", 1 << 10).replacen(
                "(func",
                &format!("(func (local{})", " i32".repeat(count)),
                1,
            )
        };
        let types = |count: usize| {
            // Types differ in their results, so that none is written twice.
            let one = |n: usize| {
                format!(
                    "(type (func (param{}) (result{})))",
                    " i32".repeat(n % 10),
                    " i64".repeat(100 - n % 10)
                )
            };
            (0..count).map(one).collect::<String>()
        };
        for (small, large, says) in [
            (
                nested("loop", 100),
                nested("loop", 101),
                "loops in one another",
            ),
            (
                with_locals(1 << 7),
                with_locals((1 << 7) + 1),
                "times locals",
            ),
            (
                "(func)".repeat(60_000),
                "(func)".repeat(60_001),
                "functions",
            ),
            (
                format!("(func {})", "nop ".repeat(500 << 10)),
                format!("(func {})", "nop ".repeat(513 << 10)),
                "bytes in one function",
            ),
            (
                format!("(func {})", "loop end ".repeat(2000)),
                format!("(func {})", "loop end ".repeat(2001)),
                "loops in one function",
            ),
            (
                nested("block", 5000),
                nested("block", 5001),
                "blocks in one another",
            ),
            (types(1000), types(1001), "types"),
        ] {
            assert_eq!(refused(&small), None);
            let message = refused(&large).unwrap_or_else(|| panic!("{says} passed"));
            assert!(message.contains(says), "{message}");
        }
    }
}
