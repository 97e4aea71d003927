# Sourced by the installers: where CARGO_TARGET_DIR names a folder outside the checkout, leaves links there to what is installed
# in the checkout, for the programs that cargo builds into it. A folder that is named through such a link is what it leads to.
if [ -n "${CARGO_TARGET_DIR:-}" ] && [ -d "$CARGO_TARGET_DIR" ]; then
    for installed in .runtime .encoder; do
        [ -e "$CARGO_TARGET_DIR/$installed" ] || ln -sfn -- "$(dirname -- "$scripts")/$installed" "$CARGO_TARGET_DIR/$installed"
    done
fi
[ -z "${runtime:-}" ] || runtime=$(readlink -m -- "$runtime")
[ -z "${encoder:-}" ] || encoder=$(readlink -m -- "$encoder")
