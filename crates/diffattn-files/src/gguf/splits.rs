//! A GGUF model in several files, `NAME-00001-of-00003.gguf` and so on: their names, and whether
//! they are all there. Opens none.

use super::header::GgufHeader;
use super::keys::Keys;
use diffattn::Error;

/// Files of a model at most: as many as their names have digits for.
const MAX_FILES: usize = 99_999;

/// The names of all files of the model that `name` is one file of, by the form of its name; that
/// name alone where it is of a model in one file.
#[must_use]
pub fn split_names(name: &str) -> Vec<String> {
    let alone = || vec![name.to_owned()];
    let Some((prefix, count)) = parts(name) else {
        return alone();
    };
    let names = (1..=count).map(|number| format!("{prefix}-{number:05}-of-{count:05}.gguf"));
    names.collect()
}

/// What stands before the number, and how many files there are.
fn parts(name: &str) -> Option<(&str, usize)> {
    let digits = |text: &str| {
        let all = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| text.parse::<usize>().ok()).flatten()
    };
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let (number, count) = (digits(number)?, digits(count)?);
    ((1..=count).contains(&number) && count <= MAX_FILES).then_some((prefix, count))
}

/// Whether these are all files of a model, in order.
pub(super) fn check(headers: &[(&str, GgufHeader<'_>)]) -> Result<(), Error> {
    let mut tensors = 0u64;
    for (index, (file, header)) in headers.iter().enumerate() {
        let keys = Keys {
            file,
            values: &header.values,
        };
        let count = keys.count("split.count")?.unwrap_or(1).max(1);
        if count != headers.len() as u64 {
            let expected = match count {
                1 => "one file, as its model has no others (split.count)".to_owned(),
                _ => format!("the {count} files of its model (split.count)"),
            };
            return Err(Error::file(file, expected, headers.len()));
        }
        let number = keys.count("split.no")?.unwrap_or(0);
        if number != index as u64 {
            let expected = format!("file {} of its model (split.no {index})", index + 1);
            return Err(Error::file(
                file,
                expected,
                format_args!("split.no {number}"),
            ));
        }
        tensors = tensors.saturating_add(header.entries().len() as u64);
    }
    let Some((file, first)) = headers.first() else {
        return Ok(());
    };
    let keys = Keys {
        file,
        values: &first.values,
    };
    match keys.count("split.tensors.count")? {
        Some(said) if headers.len() > 1 && said != tensors => {
            let expected = format!("{said} tensors in all files (split.tensors.count)");
            Err(Error::file(file, expected, tensors))
        }
        _ => Ok(()),
    }
}
