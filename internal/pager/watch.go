//go:build linux

package pager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// watchName is the kind of helpers that watch a pager.
const watchName = "pagerwatch"

// Watch waits until the VMM of the pager of a directory has ended. When its pager ends before, it writes down why and kills the VMM at once. It returns nil when the VMM has ended.
func Watch(ctx context.Context, dir string, identity vmm.Identity) error {
	machine, err := vmm.Open(identity)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer machine.Close()
	h, err := helper.Find(dir, kindName)
	if errors.Is(err, fs.ErrNotExist) {
		return orphaned(ctx, dir, machine)
	}
	if err != nil {
		return err
	}
	defer h.Close()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-machine.Done():
		return nil
	case <-h.Done():
		return orphaned(ctx, dir, machine)
	}
}

// orphaned ends a VMM whose pager has ended. Where the pager has ended it, its reason stands.
func orphaned(ctx context.Context, dir string, machine *vmm.Process) error {
	why, err := Reason(dir, machine.Identity())
	select {
	case <-machine.Done():
		return nil
	default:
	}
	if err != nil || why == "" {
		err = errors.Join(err, writeReason(dir, machine.Identity(), "its pager has ended, and the machine is one that ends with it"))
	}
	if err := errors.Join(err, machine.Kill()); err != nil {
		return fmt.Errorf("end the VMM whose pager has ended: %w", err)
	}
	_, err = machine.Wait(ctx)
	return err
}

// WatchKind is who watches a pager, as a helper.
func WatchKind() helper.Kind {
	return helper.Kind{Name: watchName, Version: version, Serve: serveWatch, Idle: leave, Needed: watchNeeded}
}

func serveWatch(ctx context.Context, session *helper.Session) error {
	var identity vmm.Identity
	if err := json.Unmarshal(session.Config(), &identity); err != nil {
		return err
	}
	if err := session.Ready(); err != nil {
		return err
	}
	if err := Watch(ctx, session.Dir(), identity); err != nil {
		return err
	}
	<-ctx.Done() // nothing needs it any more
	return nil
}

func watchNeeded(session *helper.Session) bool {
	var identity vmm.Identity
	return json.Unmarshal(session.Config(), &identity) == nil && vmm.Runs(identity)
}

// StartWatch leaves Watch to a helper, which also lives while no driver does. The pager must live. Path and leaf are as of helper.Spec.
func StartWatch(ctx context.Context, path string, leaf func() (*cgroup.Leaf, error), dir string, identity vmm.Identity) (*helper.Handle, error) {
	text, err := json.Marshal(identity)
	if err != nil {
		return nil, err
	}
	return helper.Start(ctx, helper.Spec{Kind: watchName, Version: version, Dir: dir, Config: text, Path: path, Cgroup: leaf})
}
