package warmpool

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// A pool that can't make machines tries again after a pause that doubles from the one to the other.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// orphanage is how old a machine may be that is still being made by another process: then its maker has gone.
const orphanage = 2 * time.Minute

// keep sees to it that as many machines wait as are to, until ctx ends.
func (p *Pool) keep(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		err := p.look(ctx)
		if err == nil {
			err = p.fill(ctx)
		}
		wait := p.options.Interval
		if err == nil {
			pause = 0
		} else if ctx.Err() == nil {
			p.options.Logger.Warn("a pool can't be filled", "pool", p.name, "error", err)
			pause = min(max(2*pause, firstPause), longestPause)
			wait = pause
		}
		p.rest(ctx, wait, err == nil)
	}
}

// rest waits, for no longer than something is to be done where that is of use.
func (p *Pool) rest(ctx context.Context, wait time.Duration, early bool) {
	wake := p.wake
	if !early {
		wake = nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// watch has the pool look when something happens to what waits. A runtime that can't tell is looked at from time to time.
func (p *Pool) watch(ctx context.Context) {
	events, err := p.rt.Watch(ctx, &microvm.Filter{Labels: map[string]string{Label: p.name}})
	if err != nil {
		return
	}
	for event, err := range events {
		if err == nil && (event.Type == microvm.EventStopped || event.Type == microvm.EventClaimed || event.Type == microvm.EventDestroyed) {
			p.kick()
		}
	}
}

// look finds out what waits, and discards what is not to: what is broken, too old, or too much.
func (p *Pool) look(ctx context.Context) error {
	p.looking.Lock()
	defer p.looking.Unlock()
	p.mu.Lock()
	p.made = nil
	clear(p.taken)
	p.mu.Unlock()
	infos, err := p.rt.List(ctx, &microvm.Filter{Labels: map[string]string{Label: p.name}})
	if err != nil {
		return err
	}
	slices.SortFunc(infos, func(a, b microvm.Info) int { return a.Created.Compare(b.Created) })
	var good, bad []string
	for _, info := range infos {
		switch {
		case !strings.HasPrefix(info.Name, p.prefix()): // it was claimed
		case p.waits(&info):
			good = append(good, info.Name)
		case p.discards(ctx, &info):
			bad = append(bad, info.Name)
		}
	}
	bad = append(bad, p.found(good)...)
	for _, name := range bad {
		err := p.rt.Discard(ctx, name)
		if err != nil && !errors.Is(err, microvm.ErrNotFound) && !errors.Is(err, microvm.ErrState) && ctx.Err() == nil { // else somebody was faster
			p.options.Logger.Warn("a machine that is not to wait in a pool stays", "pool", p.name, "machine", name, "error", err)
		}
	}
	return context.Cause(ctx)
}

// found takes in what waits, and returns what of it is too much.
func (p *Pool) found(good []string) (surplus []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range p.made { // the list may be older
		if !slices.Contains(good, name) {
			good = append(good, name)
		}
	}
	good = slices.DeleteFunc(good, func(name string) bool { return p.taking[name] || p.taken[name] })
	if len(good) > p.size {
		good, surplus = good[:p.size:p.size], good[p.size:] // what is appended to one is not in the other
	}
	p.ready = good
	p.change()
	return surplus
}

// waits says whether a machine can be handed out.
func (p *Pool) waits(info *microvm.Info) bool {
	return Waits(info, p.name) && info.Spec.Labels[SnapshotLabel] == p.snapshot.UID && (p.options.MaxAge == 0 || time.Since(info.Created) < p.options.MaxAge)
}

// discards says whether a machine that can't be handed out is this process's to discard. One of a newer snapshot is not, nor is one that is being made.
func (p *Pool) discards(ctx context.Context, info *microvm.Info) bool {
	if info.State == microvm.StateCreating || info.State == microvm.StateDestroying {
		return false
	}
	uid := info.Spec.Labels[SnapshotLabel]
	if uid == p.snapshot.UID {
		return true
	}
	other, err := p.rt.Snapshot(ctx, uid)
	return errors.Is(err, microvm.ErrNotFound) || err == nil && other.Created.Before(p.snapshot.Created)
}

// fill makes what is missing, some at a time.
func (p *Pool) fill(ctx context.Context) error {
	missing, err := p.missing(ctx)
	if err != nil || missing <= 0 {
		return err
	}
	places := make(chan struct{}, p.options.Parallel)
	var mu sync.Mutex
	var making sync.WaitGroup
	for range missing {
		places <- struct{}{}
		mu.Lock()
		failed := err
		mu.Unlock()
		if failed != nil || ctx.Err() != nil || !p.wants() {
			break
		}
		making.Go(func() {
			defer func() { <-places }()
			if failed := p.make(ctx); failed != nil {
				mu.Lock()
				defer mu.Unlock()
				err = failed
			}
		})
	}
	making.Wait()
	return err
}

// missing returns how many are to be made by this process: those that others make come.
func (p *Pool) missing(ctx context.Context) (int, error) {
	infos, err := p.rt.List(ctx, &microvm.Filter{Labels: map[string]string{Label: p.name}, States: []microvm.State{microvm.StateCreating}})
	if err != nil {
		return 0, err
	}
	coming := 0
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, info := range infos {
		if !p.taking[info.Name] && time.Since(info.Created) < orphanage {
			coming++
		}
	}
	return p.size - len(p.ready) - coming, nil
}

// wants says whether one more is to be made.
func (p *Pool) wants() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)+p.making < p.size
}

// make makes one machine that waits.
func (p *Pool) make(ctx context.Context) error {
	p.mu.Lock()
	p.making++
	p.mu.Unlock()
	name := p.newName()
	_, _, err := p.rt.Restore(ctx, p.snapshot.UID, name, p.restoreOptions())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making--
	if err == nil {
		p.ready, p.made = append(p.ready, name), append(p.made, name)
		p.status.Error = ""
	} else if ctx.Err() == nil {
		p.unmade++
		p.status.Failed++
		p.status.Error = err.Error()
	}
	p.change()
	return err
}

func (p *Pool) newName() string { return p.prefix() + strings.ToLower(rand.Text()[:10]) }
