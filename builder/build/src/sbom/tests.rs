use super::*;

fn debian() -> Distribution {
    Distribution { id: "debian".to_owned(), version: "12".to_owned() }
}

fn urls(packages: &[Package]) -> Vec<String> {
    packages.iter().map(|package| package.url(&debian())).collect()
}

#[test]
fn databases_of_distributions() {
    let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u4\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: g++\nStatus: install ok installed\nVersion: 4:12.2\n";
    assert_eq!(
        urls(&database::dpkg(status, &debian())),
        [
            "pkg:deb/debian/libc6@2.36-9+deb12u4?arch=amd64&distro=debian-12",
            "pkg:deb/debian/g++@4:12.2?distro=debian-12"
        ]
    );
    let installed = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:noversion\n";
    let packages = database::apk(installed, &Distribution::default());
    assert_eq!(packages.len(), 1);
    assert_eq!((packages[0].name.as_str(), packages[0].license.as_str()), ("musl", "MIT"));
}

#[test]
fn packages_of_languages() {
    assert!(language::is_npm_package("usr/lib/node_modules/npm/package.json"));
    assert!(language::is_npm_package("a/node_modules/b/node_modules/@s/c/package.json"));
    assert!(!language::is_npm_package("a/node_modules/b/test/package.json"));
    assert!(!language::is_npm_package("a/package.json"));
    let npm = language::npm(br#"{"name":"@s/c","version":"1.0.0","license":"ISC"}"#).unwrap();
    assert_eq!(npm.url(&debian()), "pkg:npm/%40s/c@1.0.0");
    assert!(language::npm(b"{").is_none());
    let python =
        language::python("Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 2.0\nLicense: BSD\n\nName: x\n").unwrap();
    assert_eq!(python.url(&debian()), "pkg:pypi/foo-bar@2.0");
    let cargo = language::cargo("[v1]\n\"ripgrep 14.1.0 (registry+https://x)\" = [\"rg\"]\n");
    assert_eq!(urls(&cargo), ["pkg:cargo/ripgrep@14.1.0"]);
}

#[test]
fn rpm_headers() {
    let strings = ["bash\0", "5.1\0", "2.el9\0", "x86_64\0"];
    let mut offset = 0_u32;
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, text) in [1000_u32, 1001, 1002, 1022].into_iter().zip(strings) {
        for number in [tag, 6, offset, 1] {
            index.extend(number.to_be_bytes());
        }
        data.extend(text.bytes());
        offset += u32::try_from(text.len()).unwrap();
    }
    let mut blob = [4_u32.to_be_bytes(), offset.to_be_bytes()].concat();
    blob.extend(index);
    blob.extend(data);
    let package = rpm::package(&blob, &debian()).unwrap();
    assert_eq!(package.url(&debian()), "pkg:rpm/debian/bash@5.1-2.el9?arch=x86_64&distro=debian-12");
    for end in 0..blob.len() {
        rpm::package(&blob[..end], &debian());
    }
    assert!(rpm::package(&[0xFF; 64], &debian()).is_none());
    assert!(rpm::packages(b"no database", &debian()).is_empty());
}
