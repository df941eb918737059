//! Kernels to boot: Debian's packages by series and flavour, fetched once into the cache, or a kernel of the caller's.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use crate::{
    place::Cache,
    process::{output_of, quiet},
    setup,
};

/// Debian's name of this machine's architecture, in the names of kernel packages.
#[cfg(target_arch = "x86_64")]
const ARCH: &str = "amd64";
/// Debian's name of this machine's architecture, in the names of kernel packages.
#[cfg(target_arch = "aarch64")]
const ARCH: &str = "arm64";

/// What `--kernel` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The newest kernel of a series that Debian packages, such as `6.12-rt`.
    Debian {
        /// Major and minor version, such as `6.12`.
        series: String,
        /// Whether PREEMPT_RT.
        rt: bool,
    },
    /// A kernel image, or a directory that holds `boot/vmlinuz-*` and `lib/modules`.
    Path(PathBuf),
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (series, rt) = name.strip_suffix("-rt").map_or((name, false), |series| (series, true));
        let numbers: Vec<&str> = series.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        if numbers.len() == 2 && numbers.iter().all(is_number) {
            return Ok(Self::Debian { series: series.to_owned(), rt });
        }
        if Path::new(name).exists() {
            return Ok(Self::Path(name.into()));
        }
        Err("neither a series such as 6.1-rt or 6.12 nor an existing path".to_owned())
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { series, rt } => write!(f, "{series}{}", if *rt { "-rt" } else { "" }),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Kernel {
    /// The kernel image, fetched into the cache if it is not there yet.
    ///
    /// Debian's newest point release is taken. Where that cannot be fetched, the newest in the cache serves.
    ///
    /// # Errors
    /// When there is no such kernel, neither in the package lists nor in the cache, or the path holds none.
    pub(crate) fn image(&self, cache: &Cache) -> Result<PathBuf> {
        let (series, rt) = match self {
            Self::Path(path) => return image_at(path),
            Self::Debian { series, rt } => (series, *rt),
        };
        let kernels = cache.dir("kernels")?;
        let _lock = cache.lock()?;
        let cached = newest(cached_releases(&kernels)?.iter().map(String::as_str), series, rt);
        if available(series, rt).is_none() && cached.is_none() {
            setup::refresh_package_lists(cache)?;
        }
        let release = match (available(series, rt), cached) {
            (Some(release), cached) if cached.as_ref() != Some(&release) => {
                match (fetch(cache, &kernels, &release), cached) {
                    (Ok(()), _) => release,
                    (Err(error), Some(cached)) => {
                        eprintln!(
                            "xtask: taking {cached} from the cache, because {release} cannot be fetched: {error:#}"
                        );
                        cached
                    }
                    (Err(error), None) => return Err(error),
                }
            }
            (_, Some(cached)) => cached,
            (_, None) => bail!(
                "no kernel package {} in the package lists; they need Debian 12 with its security updates, \
                 or give the path of a kernel image",
                package(&format!("{series}.*{}-{ARCH}", if rt { "-rt" } else { "" }))
            ),
        };
        image_at(&kernels.join(release))
    }
}

/// The image itself, or the only one in `path/boot`.
fn image_at(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return path.canonicalize().with_context(|| format!("resolving {}", path.display()));
    }
    let boot = path.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("listing {}", boot.display()))?;
    let mut images: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .collect();
    match (images.pop(), images.pop()) {
        (Some(image), None) => image.canonicalize().with_context(|| format!("resolving {}", image.display())),
        (None, _) => bail!("no vmlinuz-* in {}", boot.display()),
        (Some(_), Some(_)) => bail!("several vmlinuz-* in {}; name one of them", boot.display()),
    }
}

/// Name of the package that holds the kernel `release`, without a signature as virtual machines need none.
fn package(release: &str) -> String {
    format!("linux-image-{release}-unsigned")
}

/// Releases in the cache that are complete.
fn cached_releases(kernels: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(kernels).with_context(|| format!("listing {}", kernels.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The newest release in the package lists of this machine; `None` without apt or without such a package.
fn available(series: &str, rt: bool) -> Option<String> {
    let pattern = format!("^linux-image-{}\\..*-unsigned$", series.replace('.', "\\."));
    let found = output_of(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let releases = found
        .lines()
        .filter_map(|line| line.split(' ').next()?.strip_prefix("linux-image-")?.strip_suffix("-unsigned"));
    newest(releases, series, rt)
}

/// The newest of `releases` (as `uname -r` prints them) that belongs to `series` and is PREEMPT_RT or not.
fn newest<'a>(releases: impl Iterator<Item = &'a str>, series: &str, rt: bool) -> Option<String> {
    releases
        .filter_map(|release| Some((version_of(release, series, rt)?, release)))
        .max()
        .map(|(_, release)| release.to_owned())
}

/// The numbers that order `release` among its kind; `None` when it is of another series, flavour or architecture.
fn version_of(release: &str, series: &str, rt: bool) -> Option<Vec<u64>> {
    let version = release.strip_suffix(ARCH)?.strip_suffix('-')?;
    let version = if rt { version.strip_suffix("-rt")? } else { version };
    version.strip_prefix(series)?.strip_prefix('.')?;
    // What is left may only be numbers, apart from Debian's suffix such as "+deb12": no further flavour ("-cloud").
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let (upstream, suffix) = version.split_once('+').unwrap_or((version, "0"));
    if suffix.contains('-') || !upstream.split(['.', '-']).all(plain) {
        return None;
    }
    let digits = suffix.trim_start_matches(|c: char| !c.is_ascii_digit());
    let suffix: String = digits.chars().take_while(char::is_ascii_digit).collect();
    upstream.split(['.', '-']).chain([suffix.as_str()]).map(|part| part.parse().ok()).collect()
}

/// Downloads and unpacks a release. It appears in the cache under its name only when complete.
fn fetch(cache: &Cache, kernels: &Path, release: &str) -> Result<()> {
    let package = package(release);
    let partial = cache.path(&format!("kernel-{}.part", std::process::id()));
    let result = unpack(cache, &partial, &package, release);
    if result.is_ok() {
        let home = kernels.join(release);
        fs::rename(partial.join("tree"), &home)
            .with_context(|| format!("moving the unpacked kernel to {}", home.display()))?;
    }
    let _ = fs::remove_dir_all(&partial);
    result
}

fn unpack(cache: &Cache, partial: &Path, package: &str, release: &str) -> Result<()> {
    let log = cache.log("kernel")?;
    let tree = setup::unpack_package(package, partial, &log)?;
    // The package's own installation would do this.
    let depmod = crate::process::find_program("depmod").context("no depmod; it is in the package kmod")?;
    quiet("listing the modules", &log, Command::new(depmod).arg("-b").arg(&tree).arg(release))?;
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    File::open(&image).with_context(|| format!("opening {}, which {package} should hold", image.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(series: &str, rt: bool) -> Option<String> {
        let list = [
            "6.1.0-9-rt-ARCH",
            "6.1.0-56-rt-ARCH",
            "6.1.0-57-ARCH",
            "6.1.0-58-cloud-ARCH",
            "6.12.9+deb12-rt-ARCH",
            "6.12.117+deb12-rt-ARCH",
            "6.12.115+deb12-ARCH",
            "6.12.116+deb12-cloud-ARCH",
            "6.12.99-rt-other",
            "6.1.0-99-rt",
            "6.12.117",
        ]
        .map(|release| release.replace("ARCH", ARCH));
        newest(list.iter().map(String::as_str), series, rt).map(|release| release.replace(ARCH, "ARCH"))
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(pick("6.1", true).as_deref(), Some("6.1.0-56-rt-ARCH"));
        assert_eq!(pick("6.12", true).as_deref(), Some("6.12.117+deb12-rt-ARCH"));
    }

    #[test]
    fn flavours_are_kept_apart() {
        assert_eq!(pick("6.1", false).as_deref(), Some("6.1.0-57-ARCH"));
        assert_eq!(pick("6.12", false).as_deref(), Some("6.12.115+deb12-ARCH"));
    }

    #[test]
    fn a_series_is_not_the_beginning_of_another() {
        assert_eq!(pick("6.11", true), None);
        assert_eq!(pick("6.2", false), None);
    }

    #[test]
    fn a_rebuild_for_a_later_debian_is_newer() {
        let list = [format!("6.12.9+deb12-{ARCH}"), format!("6.12.9+deb13-{ARCH}")];
        assert_eq!(newest(list.iter().map(String::as_str), "6.12", false), Some(list[1].clone()));
    }

    #[test]
    fn a_kernel_is_named_by_series_or_path() {
        assert_eq!("6.1-rt".parse(), Ok(Kernel::Debian { series: "6.1".into(), rt: true }));
        assert_eq!("6.12".parse(), Ok(Kernel::Debian { series: "6.12".into(), rt: false }));
        assert_eq!("/dev/null".parse(), Ok(Kernel::Path("/dev/null".into())));
        assert!("6.x-rt".parse::<Kernel>().is_err());
        assert!("/no/such/kernel".parse::<Kernel>().is_err());
    }
}
