//! Kernels to boot: Debian's packages by series and flavour, fetched once into the cache, or a kernel of the caller's.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{self, ARCH},
    place::Cache,
    process::{find_program, output_of, quiet},
    suite::{self, SUITE},
};

/// Kernels that the tests boot on this machine's file system unless others are named.
pub(crate) const TESTED: [&str; 3] = ["6.1-rt", "6.12-rt", "7.2-rt"];
/// Those that are also booted as field guests.
pub(crate) const FIELD_TESTED: [&str; 2] = [WHOLE, "7.2-rt"];
/// The kernel that runs every check unless others are named. The others run those whose outcome may depend on the kernel: an
/// emulated guest takes a quarter of an hour for all.
pub(crate) const WHOLE: &str = "6.12-rt";

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
    /// The kernel's files, fetched into the cache if they are not there yet.
    ///
    /// Debian's newest point release is taken. Where that cannot be fetched, the newest in the cache serves.
    ///
    /// # Errors
    /// When there is no such kernel, neither in the package lists nor in the cache, or the path holds none.
    pub(crate) fn installed(&self, cache: &Cache) -> Result<Installed> {
        let (series, rt) = match self {
            Self::Path(path) => return installed_at(path),
            Self::Debian { series, rt } => (series, *rt),
        };
        let kernels = cache.dir("kernels")?;
        let _lock = cache.lock("kernels")?;
        let cached = newest(cached_releases(&kernels)?.iter().map(String::as_str), series, rt);
        let mut offer = available(cache, series, rt)?;
        if cached.is_none() {
            // Lists that are not of today name what the mirror has no more.
            offer = refreshed(cache, series, rt)?;
        }
        let release = match (offer, cached) {
            (Some(offer), cached) if cached.as_ref() != Some(&offer.release) => {
                match (fetch(cache, &kernels, &offer), cached) {
                    (Ok(()), _) => offer.release,
                    (Err(error), Some(cached)) => {
                        eprintln!(
                            "xtask: taking {cached} from the cache, because {} cannot be fetched: {error:#}",
                            offer.release
                        );
                        cached
                    }
                    (Err(error), None) => return Err(error),
                }
            }
            (_, Some(cached)) => cached,
            (_, None) => bail!(
                "no kernel {self} in the package lists of this machine, nor in Debian's {SUITE}; they need Debian 12 \
                 with its security updates, or give the path of a kernel image"
            ),
        };
        installed_at(&kernels.join(release))
    }
}

/// A kernel's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// What `uname -r` prints.
    pub(crate) release: String,
    /// The image to boot.
    pub(crate) image: PathBuf,
    /// The directory that holds the modules in one named after the release; `None` for a kernel without.
    pub(crate) modules: Option<PathBuf>,
}

/// The kernel of a tree, or the image itself with the modules that this machine has for it.
fn installed_at(path: &Path) -> Result<Installed> {
    let path = path.canonicalize().with_context(|| format!("resolving {}", path.display()))?;
    let (image, tree) = if path.is_file() {
        let beside = path.parent().filter(|dir| dir.ends_with("boot")).and_then(Path::parent);
        let tree = beside.unwrap_or(Path::new("/")).to_owned();
        (path, tree)
    } else {
        (only_image(&path)?, path)
    };
    let release = release_of(&image)?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| tree.join(dir));
    let modules = modules.into_iter().find(|dir| dir.join(&release).is_dir());
    Ok(Installed { release, image, modules })
}

/// The only image in a tree: `boot/vmlinuz-RELEASE`, or `RELEASE/vmlinuz` among the modules.
fn only_image(tree: &Path) -> Result<PathBuf> {
    let entries = |dir: &str| fs::read_dir(tree.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    let mut images: Vec<PathBuf> = entries("boot").filter(named).collect();
    if images.is_empty() {
        images = entries("usr/lib/modules").map(|dir| dir.join("vmlinuz")).filter(|file| file.is_file()).collect();
    }
    match (images.pop(), images.pop()) {
        (Some(image), None) => Ok(image),
        (None, _) => bail!("no boot/vmlinuz-* and no usr/lib/modules/*/vmlinuz in {}", tree.display()),
        (Some(_), Some(_)) => bail!("several kernel images in {}; name one of them", tree.display()),
    }
}

/// The release of an image, by its name, its directory's, or what the header of x86's format says.
fn release_of(image: &Path) -> Result<String> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let file = name(image).unwrap_or_default();
    if let Some(release) = file.strip_prefix("vmlinuz-") {
        return Ok(release.to_owned());
    }
    if let Some(dir) = image.parent()
        && dir.parent().and_then(name).as_deref() == Some("modules")
    {
        return name(dir).with_context(|| format!("{} is not UTF-8", dir.display()));
    }
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    release_in_header(&bytes).with_context(|| format!("{} does not say its release", image.display()))
}

/// The release in an image of x86's boot protocol (Documentation/arch/x86/boot.rst: `header`, `kernel_version`).
fn release_in_header(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    let end = text.iter().position(|byte| *byte == 0 || *byte == b' ')?;
    String::from_utf8(text.get(..end)?.to_vec()).ok().filter(|release| !release.is_empty())
}

/// Releases in the cache that are complete.
fn cached_releases(kernels: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(kernels).with_context(|| format!("listing {}", kernels.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// A kernel that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    release: String,
    /// Whether it comes from [`SUITE`], not from what this machine itself installs from.
    newer: bool,
}

impl Offer {
    /// The packages that it consists of; images without a signature where there is a choice, as virtual machines need none.
    fn packages(&self) -> Vec<String> {
        let kinds: &[(&str, &str)] =
            if self.newer { &[("binary", ""), ("modules", ""), ("base", "")] } else { &[("image", "-unsigned")] };
        kinds.iter().map(|(kind, suffix)| format!("linux-{kind}-{}{suffix}", self.release)).collect()
    }

    fn apt(&self, cache: &Cache) -> Result<Command> {
        if self.newer { suite::apt(cache, "apt-get") } else { Ok(Command::new("apt-get")) }
    }
}

/// The newest release in the package lists of this machine, else in those of the newer suite; `None` without apt or without
/// such a package.
fn available(cache: &Cache, series: &str, rt: bool) -> Result<Option<Offer>> {
    let search = |mut apt_cache: Command, kind: &str, suffix: &str| {
        let pattern = format!("^linux-{kind}-{}\\..*{suffix}$", series.replace('.', "\\."));
        let found = output_of(apt_cache.args(["search", "--names-only", &pattern]))?;
        let releases = found.lines().filter_map(|line| {
            line.split(' ').next()?.strip_prefix("linux-")?.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(suffix)
        });
        newest(releases, series, rt)
    };
    if let Some(release) = search(Command::new("apt-cache"), "image", "-unsigned") {
        return Ok(Some(Offer { release, newer: false }));
    }
    let newer = search(suite::apt(cache, "apt-cache")?, "binary", "");
    Ok(newer.map(|release| Offer { release, newer: true }))
}

/// [`available`] by the mirror's word of today.
fn refreshed(cache: &Cache, series: &str, rt: bool) -> Result<Option<Offer>> {
    apt::refresh_package_lists(cache)?;
    match available(cache, series, rt)? {
        Some(Offer { newer: false, release }) => Ok(Some(Offer { newer: false, release })),
        _ => {
            suite::refresh_package_lists(cache)?;
            available(cache, series, rt)
        }
    }
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
fn fetch(cache: &Cache, kernels: &Path, offer: &Offer) -> Result<()> {
    let partial = cache.path(&format!("kernel-{}.part", std::process::id()));
    let result = unpack(cache, &partial, offer).and_then(|tree| {
        let home = kernels.join(&offer.release);
        fs::rename(tree, &home).with_context(|| format!("moving the unpacked kernel to {}", home.display()))
    });
    let _ = fs::remove_dir_all(&partial);
    result
}

fn unpack(cache: &Cache, partial: &Path, offer: &Offer) -> Result<PathBuf> {
    let log = cache.log("kernel")?;
    let tree = apt::unpack_packages(offer.apt(cache)?, &offer.packages(), partial, &log)?;
    // Where a package has its modules below usr only, depmod still looks for lib.
    if !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib"))
            .with_context(|| format!("linking lib in {}", tree.display()))?;
    }
    // The package's own installation would do this.
    let depmod = find_program("depmod").context("no depmod; it is in the package kmod")?;
    quiet("listing the modules", &log, Command::new(depmod).arg("-b").arg(&tree).arg(&offer.release))?;
    installed_at(&tree).with_context(|| format!("{} should hold a kernel", offer.packages().join(" ")))?;
    Ok(tree)
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
    fn kernels_of_the_newer_suite_consist_of_several_packages() {
        let offer = |newer| Offer { release: "7.2.1-rt-amd64".into(), newer };
        let names = ["linux-binary-7.2.1-rt-amd64", "linux-modules-7.2.1-rt-amd64", "linux-base-7.2.1-rt-amd64"];
        assert_eq!(offer(true).packages(), names);
        assert_eq!(offer(false).packages(), ["linux-image-7.2.1-rt-amd64-unsigned"]);
    }

    #[test]
    fn a_kernel_is_found_in_both_layouts_of_debians() {
        let tree = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
        let create = |file: &str| {
            let file = tree.join(file);
            fs::create_dir_all(file.parent().expect("it lies in the tree")).expect("it can be created");
            fs::write(file, "").expect("it can be written");
        };
        create("7.2/usr/lib/modules/7.2.1-rt/vmlinuz");
        create("6.1/boot/vmlinuz-6.1.0-rt");
        create("6.1/lib/modules/6.1.0-rt/modules.dep");
        let found = |dir: &str| installed_at(&tree.join(dir)).expect("it is there");
        let (newer, older, image) = (found("7.2"), found("6.1"), found("6.1/boot/vmlinuz-6.1.0-rt"));
        let none = installed_at(&tree.join("6.1/lib"));
        fs::remove_dir_all(&tree).expect("it is ours");
        assert_eq!((newer.release.as_str(), older.release.as_str()), ("7.2.1-rt", "6.1.0-rt"));
        assert!(newer.modules.is_some_and(|dir| dir.ends_with("7.2/usr/lib/modules")));
        assert!(older.modules.as_ref().is_some_and(|dir| dir.ends_with("6.1/lib/modules")));
        assert_eq!(image, older);
        assert!(none.is_err());
    }

    #[test]
    fn an_image_says_its_release() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.9.0-rt (me) #1");
        assert_eq!(release_in_header(&image).as_deref(), Some("6.9.0-rt"));
        image[0x202] = 0;
        assert_eq!(release_in_header(&image), None);
        assert_eq!(release_in_header(b"short"), None);
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
