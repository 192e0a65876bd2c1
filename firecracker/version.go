//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// MinVersion returns the oldest Firecracker that the driver works with.
func MinVersion() api.Version { return api.Version{Major: 1, Minor: 7} }

// BinaryVersion asks a firecracker or jailer binary for its version.
func BinaryVersion(ctx context.Context, path string) (api.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return api.Version{}, fmt.Errorf("%s --version: %w", path, err)
	}
	_, text, _ := strings.Cut(string(out), " ") // "Firecracker v1.12.1", "Jailer v1.12.1"
	version, err := api.ParseVersion(text)
	if err != nil {
		return version, fmt.Errorf("%s --version: %w", path, err)
	}
	return version, nil
}

// permits refuses a verb that the Firecracker that a run is on must not be used for.
func (d *driver) permits(ctx context.Context, verb string, run *state.Run) error {
	version, err := d.runsOn(ctx, run)
	if err != nil {
		return err
	}
	for _, problem := range version.Known() {
		if problem.Verb == verb {
			return fmt.Errorf("%w: %s on Firecracker %s: %s (%s)", microvm.ErrUnsupported, verb, version, problem.What, problem.Remedy)
		}
	}
	return nil
}

// supports refuses a plan that this Firecracker can't run, before anything is touched: it would refuse it late, or ignore what it does not know.
func (p program) supports(plan plan) error {
	if p.version.Compare(MinVersion()) < 0 {
		return fmt.Errorf("%w: Firecracker %s (needs %s or later)", microvm.ErrUnsupported, p.version, MinVersion())
	}
	if err := api.Check(p.version, plan.config()); err != nil {
		return fmt.Errorf("%w: %w", microvm.ErrUnsupported, err)
	}
	return nil
}
