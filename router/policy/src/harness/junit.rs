//! Reports as JUnit's XML, which every CI reads.

use std::fmt::Write as _;

use super::cases::{Counts, Outcome, Report};

/// One suite for each report.
#[must_use]
pub fn render(reports: &[Report]) -> String {
    let total = reports.iter().fold(Counts::default(), |total, report| {
        total.plus(report.counts())
    });
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    push(&mut xml, format_args!("<testsuites {}>", numbers(total)));
    for report in reports {
        let name = escaped(&report.policy);
        let seconds: f64 = report.cases.iter().map(|ran| ran.took_ms / 1e3).sum();
        let counts = numbers(report.counts());
        push(
            &mut xml,
            format_args!("  <testsuite name=\"{name}\" {counts} time=\"{seconds:.6}\">"),
        );
        for ran in &report.cases {
            let case = format!(
                "    <testcase classname=\"{name}\" name=\"{}\" file=\"{}\" time=\"{:.6}\"",
                escaped(&ran.name),
                escaped(&ran.file.display().to_string()),
                ran.took_ms / 1e3
            );
            let tag = match ran.outcome {
                Outcome::Passed => {
                    push(&mut xml, format_args!("{case}/>"));
                    continue;
                }
                Outcome::Failed { .. } => "failure",
                Outcome::Broken { .. } => "error",
            };
            let text = escaped(&ran.complaint().join("\n"));
            push(
                &mut xml,
                format_args!("{case}>\n      <{tag}>{text}</{tag}>\n    </testcase>"),
            );
        }
        push(&mut xml, format_args!("  </testsuite>"));
    }
    push(&mut xml, format_args!("</testsuites>"));
    xml
}

fn numbers(counts: Counts) -> String {
    let Counts {
        passed,
        failed,
        broken,
    } = counts;
    let tests = passed + failed + broken;
    format!("tests=\"{tests}\" failures=\"{failed}\" errors=\"{broken}\"")
}

fn push(xml: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(xml, "{text}");
}

/// Text as XML 1.0 takes it: what it cannot hold at all is replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::cases::{Difference, Ran};

    #[test]
    fn every_outcome_has_its_element() {
        let ran = |name: &str, outcome| Ran {
            file: "cases/a.json".into(),
            index: 0,
            name: name.into(),
            hook: None,
            took_ms: 1.5,
            outcome,
        };
        let failed = Outcome::Failed {
            expected: None,
            got: serde_json::json!("default"),
            differences: vec![Difference {
                place: String::new(),
                expected: "\"<a>\"".into(),
                got: "\u{1}".into(),
            }],
        };
        let report = Report {
            policy: "geo".into(),
            hash: String::new(),
            cases: vec![
                ran("good & well", Outcome::Passed),
                ran("bad", failed),
                ran(
                    "ugly",
                    Outcome::Broken {
                        message: "no".into(),
                    },
                ),
            ],
        };
        let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites tests=\"3\" failures=\"1\" errors=\"1\">
  <testsuite name=\"geo\" tests=\"3\" failures=\"1\" errors=\"1\" time=\"0.004500\">
    <testcase classname=\"geo\" name=\"good &amp; well\" file=\"cases/a.json\" time=\"0.001500\"/>
    <testcase classname=\"geo\" name=\"bad\" file=\"cases/a.json\" time=\"0.001500\">
      <failure>- expected &quot;&lt;a&gt;&quot;
+ got      \u{fffd}</failure>
    </testcase>
    <testcase classname=\"geo\" name=\"ugly\" file=\"cases/a.json\" time=\"0.001500\">
      <error>no</error>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(render(&[report]), expected);
    }
}
