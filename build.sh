#!/usr/bin/env bash
# The one door. Installs what is missing and says what and which version.
#   ./build.sh         package (pkg/) and page (www/)
#   ./build.sh site    the same, then the folder to host (dist/, or the one given)
#   ./build.sh single  the same, then the page as one file (ctmatch.html, or the one given)
#   ./build.sh demo    the same, then serves it on 127.0.0.1 with the strict headers
#   ./build.sh test    the same set-up, then every check
#   ./build.sh bench   an image encode beside onnxruntime-web and PyTorch (tests/bench/README.md)
#   ./build.sh fuzz    the libFuzzer targets of tests/fuzz one after the other, 20 minutes each or as many as given
#   ./build.sh audit   every lock file against the published advisories; needs the internet
set -euo pipefail
cd "$(dirname "$0")"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/ctmatch"
# Outside the clone, so that a second clone reuses it.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
started=$SECONDS

say() { printf '\n== %s (%d s)\n' "$*" "$((SECONDS - started))"; }
stop() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Packages of Debian and Ubuntu; elsewhere the name of what is missing.
system_packages() {
  if have apt-get; then
    local sudo=""
    [ "$(id -u)" = 0 ] || { have sudo || stop "install as root: apt-get install $*"; sudo=sudo; }
    say "installing $*"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    stop "please install: $*"
  fi
}

locked_version() { awk -v name="$1" '$0 == "name = \"" name "\"" { getline; gsub(/version = |"/, ""); print; exit }' Cargo.lock; }

need_rust() {
  have cargo || stop "cargo is missing: install Rust 1.95 or newer with rustup (https://rustup.rs)"
  have cc || system_packages build-essential
  if have rustup; then
    { have cargo-clippy && have rustfmt; } || rustup component add clippy rustfmt
  fi
}

debian_cargo=(env RUSTC=/usr/bin/rustc /usr/bin/cargo)
use_debian_rust() {
  [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || system_packages rustc-web cargo-web rust-web-src
  local lld
  lld=$(find "$(rustc --print sysroot)" -name rust-lld -type f | head -n 1)
  [ -n "$lld" ] || stop "the installed toolchain has no rust-lld, which links wasm32"
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$lld" RUSTC_BOOTSTRAP=1
}

# cargo for wasm32: rustup's target, else Debian's compiler with its own standard library.
wasm_cargo=(cargo)
wasm_flags=()
wasm_clippy=yes
need_wasm_target() {
  if have rustup && { rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown; }; then
    return
  fi
  [ -e "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ] && return
  use_debian_rust
  wasm_cargo=("${debian_cargo[@]}")
  wasm_flags=(-Z build-std=std,panic_abort)
  # Debian's compiler for wasm comes without clippy; warnings of the compiler stop the tests all the same.
  wasm_clippy=no
}

# The standard library is shipped without atomics, so the module with threads is built with its source: rustup's, else Debian's with its
# compiler.
threads_cargo=()
need_rust_source() {
  threads_cargo=("${wasm_cargo[@]}")
  [ "${#wasm_flags[@]}" = 0 ] || return 0
  [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] && return
  have rustup && rustup component add rust-src && return
  use_debian_rust
  threads_cargo=("${debian_cargo[@]}")
}

need_wasm_bindgen() {
  local version found=""
  version=$(locked_version wasm-bindgen)
  [ -x "$cache/tools/bin/wasm-bindgen" ] && found=$("$cache/tools/bin/wasm-bindgen" --version | cut -d' ' -f2)
  if [ "$found" != "$version" ]; then
    say "installing wasm-bindgen-cli $version (found ${found:-none})"
    # By its own lock file; that may name a version that a mirror does not have yet, and only then it is left aside.
    CARGO_TARGET_DIR="$cache/target-tools" cargo install -q wasm-bindgen-cli --version "$version" --locked --root "$cache/tools" ||
      CARGO_TARGET_DIR="$cache/target-tools" cargo install -q wasm-bindgen-cli --version "$version" --root "$cache/tools"
  fi
  bindgen="$cache/tools/bin/wasm-bindgen"
}

need_node() {
  have node && have npm || system_packages nodejs npm
  node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)' ||
    stop "Node 20.19 or newer is needed, found $(node --version)"
}

need_browser() {
  if [ -z "${CHROME:-}" ]; then
    for name in chromium chromium-browser google-chrome; do have "$name" && CHROME=$(command -v "$name") && break; done
  fi
  if [ -z "${CHROME:-}" ]; then
    system_packages chromium
    CHROME=$(command -v chromium) || stop "no Chromium: set CHROME=/path/to/chrome"
  fi
  export CHROME
}

# A Vulkan driver that computes on the processor, for the native GPU tests.
need_vulkan() {
  [ "$(uname -s)" = Linux ] || return 0
  compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || system_packages mesa-vulkan-drivers
  ldconfig -p | grep -q libvulkan.so.1 || system_packages libvulkan1
}

# The canary's journey is repeated in a network namespace: `unshare` is of util-linux, which every Linux has.
need_namespace() {
  [ "$(uname -s)" != Linux ] || have ip || system_packages iproute2
}

# Without an export of its constructors the linker runs all of them again in every call from JavaScript, allocations included: cubecl's
# compiler has hundreds, 0.5 ms a call. Exported, they are run once, by whoever starts the module.
once=(-C link-arg=--export=__wasm_call_ctors)

# One memory for all threads: made by JavaScript, up to what 32 bits address. The rest is what wasm-bindgen starts a thread with.
shared=()
for argument in shared-memory import-memory max-memory=4294967296 export=__wasm_init_tls export=__tls_size export=__tls_align \
  export=__tls_base export=__heap_base; do shared+=(-C "link-arg=--$argument"); done

# The messages of panics name the files of all crates. Without the folders of the builder the modules tell nothing of it, and are the
# same to the byte from another clone, home or cache (SECURITY.md). Cargo names the crate's own files relative to the clone.
neutral=()
neutral_paths() {
  [ "${#neutral[@]}" = 0 ] || return 0
  "${wasm_cargo[@]}" fetch -q --locked
  local from to folder list="" names
  names=("$CARGO_TARGET_DIR" /target "$CARGO_TARGET_DIR/threads" /target)
  for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do names+=("$folder" /crates); done
  for folder in "$(rustc --print sysroot)" /usr; do names+=("$folder/lib/rustlib/src/rust" "/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"); done
  set -- "${names[@]}"
  while [ $# -gt 0 ]; do
    from="$1" to="$2"
    shift 2
    list+="\"--remap-path-prefix=$from=$to\","
  done
  neutral=(--config "target.wasm32-unknown-unknown.rustflags=[$list]")
}

# $1 is cargo's command; what follows comes after our flags, so that it may end in `-- …`.
wasm_build() {
  neutral_paths
  "${wasm_cargo[@]}" "$1" "${wasm_flags[@]}" "${neutral[@]}" --profile wasm --target wasm32-unknown-unknown --no-default-features "${@:2}"
}

# In a folder of its own, because other flags build everything again. `build-std` is an unstable option. Of the two modules this is the
# one that computes by itself: its own code is optimized for speed, an eighth faster and 230 kB gz larger.
threads_target="$CARGO_TARGET_DIR/threads"
threads_build() {
  neutral_paths
  RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$threads_target" "${threads_cargo[@]}" "$1" -Z build-std=std,panic_abort \
    --config 'target.wasm32-unknown-unknown.rustflags=["-C", "target-feature=+atomics,+bulk-memory,+mutable-globals"]' "${neutral[@]}" \
    --config 'profile.wasm.package.ctmatch.opt-level=3' --profile wasm --target wasm32-unknown-unknown --no-default-features --features threads "${@:2}"
}

# $1: name of the module, $2: what cargo made
bind() {
  "$bindgen" --target web --out-dir pkg/wasm --out-name "$1" --omit-default-module-path --remove-name-section --remove-producers-section "$2"
  printf '%s: %d bytes, %d gz\n' "$1" "$(wc -c <"pkg/wasm/$1_bg.wasm")" "$(gzip -9c "pkg/wasm/$1_bg.wasm" | wc -c)"
}

# What a compiler calls itself. $1: the first word of `wasm_cargo` or `threads_cargo`
compiler() { if [ "$1" = cargo ]; then rustc --version; else /usr/bin/rustc --version; fi; }

# `run_tests` denies warnings; a newer compiler's new ones stop nobody else's build.
strict=()

build_package() {
  say "wasm module"
  wasm_build rustc --features gpu --lib --crate-type cdylib -- "${once[@]}" "${strict[@]}"
  bind ctmatch "$CARGO_TARGET_DIR/wasm32-unknown-unknown/wasm/ctmatch.wasm"
  say "wasm module for the processor, with threads"
  threads_build rustc --lib --crate-type cdylib -- "${once[@]}" "${shared[@]}" "${strict[@]}"
  bind ctmatch_cpu "$threads_target/wasm32-unknown-unknown/wasm/ctmatch.wasm"
  node hosting/sbom.mjs "$(compiler "${wasm_cargo[0]}")" "$(compiler "${threads_cargo[0]}")" >pkg/sbom.cdx.json
}

setup() {
  need_rust
  # A lock file that no longer fits Cargo.toml stops here, before a build changes it.
  cargo tree -q --locked --target wasm32-unknown-unknown --no-default-features --features gpu,threads >/dev/null
  need_wasm_target
  need_rust_source
  need_wasm_bindgen
  need_node
}

run_tests() {
  setup
  need_browser
  need_vulkan
  need_namespace
  # Tests download nothing, and read the licences of these crates too.
  cargo tree -q --locked --manifest-path tests/fuzz/Cargo.toml --edges normal,build >/dev/null
  say "format"
  cargo fmt --check
  say "clippy, native"
  cargo clippy -q --locked --all-targets -- -D warnings
  if [ "$wasm_clippy" = yes ]; then
    say "clippy, wasm32"
    wasm_build clippy -q --features gpu --lib -- -D warnings
  fi
  strict=(-D warnings)
  say "suite"
  cargo test -q --locked --bins --tests
  cargo test -q --locked --doc
  say "documentation"
  RUSTDOCFLAGS="-D warnings" cargo doc -q --locked --no-deps
  build_package
  say "parity module"
  wasm_build rustc --features gpu --example parity -- "${once[@]}"
  "$bindgen" --target web --out-dir tests/browser/parity --out-name parity \
    "$CARGO_TARGET_DIR/wasm32-unknown-unknown/wasm/examples/parity.wasm"
  say "browser, package and its consumers"
  (
    cd tests/browser
    npm ci --silent --no-audit --no-fund
    export CTMATCH="$CARGO_TARGET_DIR/debug/ctmatch"
    node expected.mjs
    npm test --silent
  )
  say "all checks passed"
}

run_bench() {
  setup
  need_browser
  local python="$cache/bench-venv/bin/python"
  if [ ! -x "$python" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || system_packages python3 python3-venv
    python3 -m venv "$cache/bench-venv"
  fi
  say "python packages"
  "$python" -m pip install -q -r tests/bench/requirements.txt
  say "onnxruntime-web"
  (cd tests/browser && npm ci --silent --no-audit --no-fund)
  (cd tests/bench && npm ci --silent --no-audit --no-fund)
  build_package
  say "native command"
  cargo build -q --locked --bin ctmatch
  say "timing"
  CTMATCH="$CARGO_TARGET_DIR/debug/ctmatch" BENCH_PYTHON="$python" node tests/bench/run.mjs "$@"
}

# The coverage flags of cargo-fuzz, which the stable compiler takes too. An input that fails becomes a fixture: the suite runs it.
run_fuzz() {
  need_rust
  have c++ || system_packages g++
  local minutes="${1:-20}" host flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module" option
  for option in level=4 inline-8bit-counters pc-table trace-compares; do flags+=" -Cllvm-args=-sanitizer-coverage-$option"; done
  host=$(rustc -vV | sed -n 's/^host: //p')
  say "fuzz targets"
  RUSTFLAGS="$flags" cargo build -q --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$host"
  local built="$CARGO_TARGET_DIR/$host/release" work="$CARGO_TARGET_DIR/fuzz" target
  "$built/seeds" "$work/seeds"
  for target in header gzip privacy model; do
    say "$target, $minutes min"
    mkdir -p "$work/$target"
    "$built/$target" "-max_total_time=$((60 * minutes))" -max_len=16384 -rss_limit_mb=4096 -timeout=300 -print_final_stats=1 \
      "-artifact_prefix=tests/fixtures/fuzz/$target-" "$work/$target" "$work/seeds/$target"
  done
}

# Not part of the tests: the answer changes from day to day, and databases must be reached. All lists are checked before it fails.
run_audit() {
  need_rust
  need_node
  PATH="$PATH:$cache/tools/bin"
  if ! have cargo-deny; then
    say "installing cargo-deny"
    CARGO_TARGET_DIR="$cache/target-tools" cargo install -q cargo-deny --locked --root "$cache/tools"
  fi
  local failed=() lock
  say "Cargo.lock"
  cargo deny check || failed+=(Cargo.lock)
  say "tests/fuzz/Cargo.lock"
  cargo deny --manifest-path tests/fuzz/Cargo.toml --config "$PWD/deny.toml" check || failed+=(tests/fuzz/Cargo.lock)
  while read -r lock; do
    say "$lock"
    (cd "$(dirname "$lock")" && npm audit --package-lock-only --no-fund </dev/null) || failed+=("$lock")
  done < <(find tests -name package-lock.json -not -path '*/node_modules/*' | sort)
  [ "${#failed[@]}" = 0 ] || stop "not clean, or not checked: ${failed[*]}"
  say "nothing known against what is locked"
}

case "${1:-build}" in
  build)
    setup
    build_package
    ;;
  site)
    setup
    build_package
    say "site"
    node hosting/site.mjs "${2:-dist}"
    cp pkg/sbom.cdx.json "${2:-dist}/"
    ;;
  single)
    setup
    build_package
    say "single file"
    (cd tests/browser && npm ci --silent --no-audit --no-fund)
    node hosting/single.mjs "${2:-ctmatch.html}"
    ;;
  demo)
    setup
    build_package
    say "site"
    node hosting/site.mjs "$cache/site"
    say "serving"
    exec node tests/browser/serve.mjs --root "$cache/site" "${@:2}"
    ;;
  test) run_tests ;;
  bench) run_bench "${@:2}" ;;
  fuzz) run_fuzz "${@:2}" ;;
  audit) run_audit ;;
  *) stop "usage: ./build.sh [demo|site [folder]|single [file]|test|bench [options]|fuzz [minutes]|audit]" ;;
esac
