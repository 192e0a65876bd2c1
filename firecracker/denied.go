//go:build linux

package firecracker

import (
	"context"
	"errors"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

const (
	// deniedAgain is how long a flow that was told is not told again.
	deniedAgain = time.Minute
	// deniedTurn is how often a process tries to become the one that hears of a slot's denied flows: the kernel tells one.
	deniedTurn = 2 * time.Second
	// deniedKnown is how many flows are remembered as told.
	deniedKnown = 1024
)

// tellDenied tells the flows of a run that are denied, as long as the run is watched.
func (d *driver) tellDenied(uid string, w *watch) {
	record, err := d.state.ReadRecord(uid)
	if err != nil || !hasNetwork(&record.Spec) {
		return
	}
	ctx, cancel := context.WithCancel(d.life)
	defer cancel()
	defer cancelWhen(cancel, w.left)()
	defer cancelWhen(cancel, w.process.Done())()
	for ctx.Err() == nil {
		err := d.hearDenied(ctx, &record)
		if err != nil && !errors.Is(err, syscall.EBUSY) && ctx.Err() == nil {
			d.log.Warn("denied flows are not told", "uid", uid, "error", err)
			return
		}
		select {
		case <-time.After(deniedTurn):
		case <-ctx.Done():
		}
	}
}

// hearDenied returns syscall.EBUSY while another process hears.
func (d *driver) hearDenied(ctx context.Context, record *state.Record) error {
	ns, err := netns.Open(d.slotPath(record.Slot))
	if err != nil {
		return err
	}
	defer ns.Close()
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		return err
	}
	defer rules.Close()
	told := map[microvm.DeniedFlow]time.Time{}
	for flow, err := range rules.WatchDenied(ctx) {
		if err != nil {
			return err
		}
		which := deniedFlow(flow)
		which.Packets = 0
		if since, ok := told[which]; ok && time.Since(since) < deniedAgain {
			continue
		}
		if len(told) >= deniedKnown {
			clear(told)
		}
		told[which] = time.Now()
		which.Packets = 1
		name, _ := d.state.NameOf(record.UID)
		d.note(microvm.Event{Time: time.Now(), Type: microvm.EventDenied, UID: record.UID, Name: name, Denied: &which, Labels: record.Spec.Labels})
	}
	return nil
}
