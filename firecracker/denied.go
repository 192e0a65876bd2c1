//go:build linux

package firecracker

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

const (
	// deniedAgain is how long a flow that was told is not told again.
	deniedAgain = time.Minute
	// deniedTurn is how often a process tries to become the one that hears of a slot's denied flows: the kernel tells one. That one asks as often for names.
	deniedTurn = 2 * time.Second
	// deniedPerSecond is how many names of a machine are told; of flows the kernel tells as many.
	deniedPerSecond = 10
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
	return d.withRules(record.Slot, func(rules *firewall.Slot) error {
		ctx, cancel := context.WithCancel(ctx)
		var names sync.WaitGroup
		names.Go(func() { d.hearNames(ctx, record) })
		defer names.Wait()
		defer cancel()
		told := telling{}
		for flow, err := range rules.WatchDenied(ctx) {
			if err != nil {
				return err
			}
			which := deniedFlow(flow)
			which.Packets = 1
			if told.due(which) {
				d.noteDenied(record, which)
			}
		}
		return nil
	})
}

// hearNames asks the guard, where one lives, which names were denied since it was asked last: those before are another process's to tell, or were told.
func (d *driver) hearNames(ctx context.Context, record *state.Record) {
	told := telling{}
	known, _ := d.deniedNames(ctx, record)
	for {
		select {
		case <-time.After(deniedTurn):
		case <-ctx.Done():
			return
		}
		names, err := d.deniedNames(ctx, record)
		if err != nil { // no guard lives, or not now
			continue
		}
		left := int(deniedTurn/time.Second) * deniedPerSecond
		for name, times := range names {
			which := deniedName(name, 1)
			if times > known[name] && left > 0 && told.due(which) {
				d.noteDenied(record, which)
				left--
			}
		}
		known = names
	}
}

func (d *driver) noteDenied(record *state.Record, which microvm.DeniedFlow) {
	name, _ := d.state.NameOf(record.UID)
	d.note(microvm.Event{Time: time.Now(), Type: microvm.EventDenied, UID: record.UID, Name: name, Denied: &which, Labels: record.Spec.Labels})
}

// telling is what was told, and when.
type telling map[microvm.DeniedFlow]time.Time

// due says whether something is to be told now, and takes it for told.
func (t telling) due(which microvm.DeniedFlow) bool {
	if since, ok := t[which]; ok && time.Since(since) < deniedAgain {
		return false
	}
	if len(t) >= deniedKnown {
		clear(t)
	}
	t[which] = time.Now()
	return true
}
