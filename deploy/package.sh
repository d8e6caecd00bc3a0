#!/usr/bin/env bash
# Builds the Debian package, target/debian/fusewire_*.deb, for the Debian or Ubuntu that this runs on, and looks it over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/setup.sh
. deploy/setup.sh

ensure_tools cc update-ca-certificates lintian
ensure_cargo
target=${CARGO_TARGET_DIR:-target}
# A pinned cargo-deb, unless that is the one there is.
version=3.8.0
PATH=$PATH:$PWD/target/tools/bin
[ "$(cargo-deb --version 2>/dev/null)" = "cargo-deb $version" ] ||
    cargo install --quiet cargo-deb --version $version --locked --root target/tools

cargo build --release --quiet --locked --package fusewire
mkdir -p target/package
"$target/release/fusewire" man >target/package/fusewire.1
"$target/release/fusewire" completions bash >target/package/fusewire.bash
"$target/release/fusewire" completions fish >target/package/fusewire.fish
"$target/release/fusewire" completions zsh >target/package/_fusewire
revision=$("$target/release/fusewire" --version | cut -d " " -f 2)-1
printf 'fusewire (%s) unstable; urgency=medium\n\n  * See /usr/share/doc/fusewire/CHANGELOG.md.\n\n -- The fusewire authors <fusewire@example.org>  %s\n' \
    "$revision" "$(date --rfc-email --reference=docs/CHANGELOG.md)" >target/package/changelog
package=$(cargo-deb --no-build --strip --quiet --locked | tail -n 1)
# What it only warns of: a package outside of Debian closes no bugs there.
lintian --fail-on error --allow-root "$package" >&2
say "$package"
