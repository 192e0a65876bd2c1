//go:build linux

package fakevmm

import (
	"encoding/json"
	"errors"
	"os"
)

// saved is what the fake writes in place of the devices' state: what was configured.
type saved struct {
	Version string                                `json:"version"`
	Set     map[string]map[string]json.RawMessage `json:"set"`
	Orders  map[string][]string                   `json:"orders"`
}

// defaultMemoryMiB is the memory of a machine of which nothing is said.
const defaultMemoryMiB = 128

// snapshot writes what was configured, and a memory of holes.
func (v *VMM) snapshot(r request) error {
	if text(r.values["snapshot_type"]) == "Diff" && !boolean(v.set["/machine-config"]["track_dirty_pages"]) {
		return refusal("The requested operation is not supported: Diff snapshots are not allowed on uVMs with dirty page tracking disabled.")
	}
	if !v.paused {
		return refusal("Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running")
	}
	state, memory := text(r.values["snapshot_path"]), text(r.values["mem_file_path"])
	if err := v.inDirectory(state); err != nil {
		return refusal("Create snapshot error: Cannot perform open on the snapshot backing file: " + err.Error())
	}
	if err := v.inDirectory(memory); err != nil {
		return refusal("Create snapshot error: Cannot perform open on the memory backing file: " + err.Error())
	}
	written, err := json.Marshal(saved{v.Release.Version, v.set, v.orders})
	if err == nil {
		err = os.WriteFile(v.at(state), written, 0o644)
	}
	if err == nil {
		err = v.writeMemory(memory)
	}
	if err != nil {
		return refusal("Create snapshot error: " + osError(err).Error())
	}
	return nil
}

func (v *VMM) writeMemory(path string) error {
	f, err := os.Create(v.at(path))
	if err != nil {
		return err
	}
	size := defaultMemoryMiB
	if set := v.set["/machine-config"]["mem_size_mib"]; set != nil {
		size = integerOf(set)
	}
	return errors.Join(f.Truncate(int64(size)<<20), f.Close())
}

// load makes the VMM what a fake's snapshot says. Any other ends it, as any load that goes wrong does.
func (v *VMM) load(r request) error {
	if v.taint {
		return refusal(tainted)
	}
	path := text(r.values["snapshot_path"])
	const prefix = "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: "
	if err := v.open(path, os.O_RDONLY); err != nil {
		v.dead = true
		return refusal(prefix + "Failed to open snapshot file: " + err.Error())
	}
	var loaded saved
	written, err := os.ReadFile(v.at(path))
	if err != nil || json.Unmarshal(written, &loaded) != nil || loaded.Set == nil {
		v.dead = true
		return refusal(prefix + `Failed to load snapshot state from file: An error occured with serialization/deserialization: OtherString("empty string, expected a semver version")`)
	}
	if loaded.Version != v.Release.Version { // the real one compares its format's, which most releases change
		v.dead = true
		return refusal(prefix + "this is a fake " + v.Release.Version + ", without snapshots of " + loaded.Version)
	}
	v.set, v.orders, v.booted, v.paused = loaded.Set, loaded.Orders, true, !boolean(r.values["resume_vm"])
	if v.Loaded == nil {
		return nil
	}
	return v.Loaded()
}
