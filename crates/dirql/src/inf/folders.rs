//! Directory identifiers: the folders that `%12%` and `[DestinationDirs]` name.
//!
//! Follows *Using Dirids*. Those of printers, which no driver lies in, and those that an installer makes up are not known.

/// A folder that a directory identifier stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder {
    /// The identifier, decimal.
    pub(super) dirid: &'static str,
    /// Its path, as the kernel knows it.
    pub(super) path: &'static str,
}

const fn folder(dirid: &'static str, path: &'static str) -> Folder {
    Folder { dirid, path }
}

/// The folders. Of the driver store only the part that no installation adds to; of the folder that an INF came from, the one that it is kept in.
const FOLDERS: &[Folder] = &[
    folder("-1", ""),
    folder("1", r"\SystemRoot\INF"),
    folder("10", r"\SystemRoot"),
    folder("11", r"\SystemRoot\System32"),
    folder("12", r"\SystemRoot\System32\drivers"),
    folder("13", r"\SystemRoot\System32\DriverStore\FileRepository"),
    folder("17", r"\SystemRoot\INF"),
    folder("18", r"\SystemRoot\Help"),
    folder("20", r"\SystemRoot\Fonts"),
    folder("21", r"\SystemRoot\System32\viewers"),
    folder("23", r"\SystemRoot\System32\spool\drivers\color"),
    folder("24", r"\??\C:"),
    folder("25", r"\SystemRoot"),
    folder("30", r"\??\C:"),
    folder("50", r"\SystemRoot\System"),
    folder("51", r"\SystemRoot\System32\spool"),
    folder("52", r"\SystemRoot\System32\spool\drivers\x64"),
    folder("53", r"\??\C:\Users\Default"),
    folder("54", r"\??\C:"),
    folder("55", r"\SystemRoot\System32\spool\prtprocs\x64"),
    folder("16406", r"\??\C:\ProgramData\Microsoft\Windows\Start Menu"),
    folder("16407", r"\??\C:\ProgramData\Microsoft\Windows\Start Menu\Programs"),
    folder("16408", r"\??\C:\ProgramData\Microsoft\Windows\Start Menu\Programs\Startup"),
    folder("16409", r"\??\C:\Users\Public\Desktop"),
    folder("16415", r"\??\C:\Users\Public\Favorites"),
    folder("16419", r"\??\C:\ProgramData"),
    folder("16422", r"\??\C:\Program Files"),
    folder("16425", r"\SystemRoot\SysWOW64"),
    folder("16426", r"\??\C:\Program Files (x86)"),
    folder("16427", r"\??\C:\Program Files\Common Files"),
    folder("16428", r"\??\C:\Program Files (x86)\Common Files"),
    folder("16429", r"\??\C:\ProgramData\Microsoft\Windows\Templates"),
    folder("16430", r"\??\C:\Users\Public\Documents"),
];

/// The folder of an identifier: `12`, `01`, `65535` for `-1`.
pub(super) fn find(dirid: &str) -> Option<Folder> {
    let plain = match dirid.trim_start_matches('0') {
        "65535" => "-1",
        plain => plain,
    };
    FOLDERS.iter().copied().find(|folder| folder.dirid == plain)
}

/// Whether an identifier is one that an installer may have made up.
pub(super) fn is_custom(dirid: &str) -> bool {
    super::target::number(dirid).is_some_and(|dirid| dirid >= 32768)
}

/// A path that begins with an identifier, `%12%\name.sys`, as the kernel knows it; the identifier alone if it is not known.
pub(super) fn expand(written: &str) -> Option<Result<(Folder, String), &str>> {
    let (dirid, path) = written.strip_prefix('%')?.split_once('%')?;
    let Some(folder) = find(dirid) else { return Some(Err(dirid)) };
    let path = path.trim_start_matches('\\');
    let whole =
        if folder.path.is_empty() { format!(r"\??\{path}") } else { format!(r"{}\{path}", folder.path) };
    Some(Ok((folder, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dirid_of_the_page_has_its_folder() {
        for (written, path) in [
            (r"%10%\a.sys", r"\SystemRoot\a.sys"),
            (r"%11%\a.sys", r"\SystemRoot\System32\a.sys"),
            (r"%12%\a.sys", r"\SystemRoot\System32\drivers\a.sys"),
            (r"%13%\x64\a.sys", r"\SystemRoot\System32\DriverStore\FileRepository\x64\a.sys"),
            (r"%01%\a.sys", r"\SystemRoot\INF\a.sys"),
            (r"%17%\a.sys", r"\SystemRoot\INF\a.sys"),
            (r"%24%\Dir\a.sys", r"\??\C:\Dir\a.sys"),
            (r"%50%\a.sys", r"\SystemRoot\System\a.sys"),
            (r"%-1%\D:\a.sys", r"\??\D:\a.sys"),
            (r"%65535%\D:\a.sys", r"\??\D:\a.sys"),
            (r"%16422%\Vendor\a.sys", r"\??\C:\Program Files\Vendor\a.sys"),
        ] {
            assert_eq!(expand(written).unwrap().unwrap().1, path, "{written}");
        }
        let known = "1 10 11 12 13 17 18 20 21 23 24 25 30 50 51 52 53 54 55 16406 16407 16408 16409 16415 16419 16422 16425 \
                     16426 16427 16428 16429 16430 -1";
        assert_eq!(known.split(' ').filter(|dirid| find(dirid).is_some()).count(), FOLDERS.len());
        assert!(expand(r"%99%\a.sys").unwrap().is_err() && expand("a.sys").is_none());
    }
}
