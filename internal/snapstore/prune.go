//go:build linux

package snapstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// Policy says which snapshots go. A snapshot goes when one of its rules says so. The zero value lets all stay.
type Policy struct {
	// Before lets go what was made before that time. Optional.
	Before time.Time
	// Keep is how many of each machine's stay, the newest. Optional: all.
	Keep int
	// MaxBytes is how much of the host's disk all may have: the oldest go until that is so. Optional.
	MaxBytes int64
	// DryRun deletes nothing: what is returned is what would be deleted.
	DryRun bool
}

// Pruned is a snapshot that was deleted.
type Pruned struct {
	Manifest
	Bytes int64 // That its files had of the host's disk.
}

// Prune deletes the snapshots that a policy does not let stay, unless something needs them that stays itself: inUse says whether a machine does. Ephemeral ones are left alone, and so
// are damaged ones, of which the error tells: record.ErrDamaged. It returns what it has deleted, also with an error.
func (s *Store) Prune(ctx context.Context, p Policy, inUse func(uid string) (user string, err error)) (removed []Pruned, err error) {
	if p.Keep < 0 || p.MaxBytes < 0 {
		return nil, &microvm.FieldError{Field: "Policy", Value: fmt.Sprintf("%+v", p), Reason: "must not be negative"}
	}
	run := &pruning{Store: s, policy: p, inUse: inUse, gone: map[string]bool{}, stuck: map[string]bool{}}
	err = run.run(ctx)
	return run.removed, errors.Join(append(run.failed, err)...)
}

// pruning is one call of Prune.
type pruning struct {
	*Store
	policy  Policy
	inUse   func(uid string) (user string, err error)
	removed []Pruned
	failed  []error
	gone    map[string]bool // the uids of removed: without Policy.DryRun they are not found any more either
	stuck   map[string]bool // and of what could not be deleted
}

func (p *pruning) run(ctx context.Context) error {
	if err := p.damaged(); err != nil {
		return err
	}
	doomed, err := p.doomed()
	if err != nil {
		return err
	}
	// What is over another is younger: so it goes first, and the other can. Where the clock was set back meanwhile it is not: hence again.
	slices.SortStableFunc(doomed, func(a, b Manifest) int { return b.Created.Compare(a.Created) })
	for again := true; again; {
		again = false
		for _, m := range doomed {
			if p.gone[m.UID] {
				continue
			}
			gone, err := p.prune(ctx, &m)
			if err != nil {
				return err
			}
			again = again || gone
		}
	}
	if p.policy.MaxBytes == 0 {
		return nil
	}
	return p.shrink(ctx)
}

// damaged notes what can only be deleted by hand.
func (p *pruning) damaged() error {
	all, err := p.List()
	for _, one := range all {
		if errors.Is(one.Problem, record.ErrDamaged) {
			p.failed = append(p.failed, fmt.Errorf("snapshot %s is left alone (delete it): %w", one.Name, one.Problem))
		}
	}
	return err
}

// doomed returns what time and number don't let stay.
func (p *pruning) doomed() (doomed []Manifest, err error) {
	all, err := p.prunable()
	if err != nil {
		return nil, err
	}
	of := map[string]int{}
	for _, m := range slices.Backward(all) {
		of[m.Machine]++
		if m.Created.Before(p.policy.Before) || p.policy.Keep > 0 && of[m.Machine] > p.policy.Keep {
			doomed = append(doomed, m)
		}
	}
	return doomed, nil
}

// prunable returns what a policy is about, the oldest first.
func (p *pruning) prunable() (all []Manifest, err error) {
	listed, err := p.List()
	for _, one := range listed {
		if one.Problem == nil && !one.Ephemeral && !p.gone[one.UID] {
			all = append(all, one.Manifest)
		}
	}
	slices.SortStableFunc(all, func(a, b Manifest) int { return a.Created.Compare(b.Created) })
	return all, err
}

// shrink deletes the oldest that nothing needs, one by one, until all have no more than so many bytes: when the last that is over another has gone, that can go.
func (p *pruning) shrink(ctx context.Context) error {
	for again := true; again; {
		again = false
		all, err := p.prunable()
		if err != nil {
			return err
		}
		for _, m := range all {
			if have, err := p.bytes(); err != nil || have <= p.policy.MaxBytes {
				return err
			}
			gone, err := p.prune(ctx, &m)
			if err != nil {
				return err
			}
			if gone {
				again = true
				break // the oldest may be free now
			}
		}
	}
	return nil
}

// bytes returns how much of the host's disk all have, without those that would be gone.
func (p *pruning) bytes() (int64, error) {
	have, err := p.Bytes()
	if p.policy.DryRun {
		for _, one := range p.removed {
			have -= one.Bytes
		}
	}
	return have, err
}

// prune deletes one, unless something needs it. It does not wait for who holds it. One that can't be deleted keeps nobody from deleting the others.
func (p *pruning) prune(ctx context.Context, m *Manifest) (gone bool, err error) {
	if err := context.Cause(ctx); err != nil || p.stuck[m.UID] {
		return false, err
	}
	const glance = 5 * time.Millisecond // a lock that is free is had at once
	looking, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	lock, err := p.alone(looking, m.UID)
	if err == nil {
		defer lock.Close()
		err = p.unneeded(m.UID, p.gone, func() (string, error) { return p.inUse(m.UID) })
	}
	switch {
	case errors.Is(err, microvm.ErrBusy) || errors.Is(err, microvm.ErrNotFound):
		return false, context.Cause(ctx)
	case err != nil: // it would be the same of the others
		return false, fmt.Errorf("prune %s: %w", m.Name, err)
	}
	bytes := p.size(m.UID)
	if !p.policy.DryRun {
		err = p.erase(m.UID)
	}
	if err != nil {
		p.stuck[m.UID], p.failed = true, append(p.failed, fmt.Errorf("prune %s: %w", m.Name, err))
		return false, nil
	}
	p.gone[m.UID], p.removed = true, append(p.removed, Pruned{*m, bytes})
	return true, nil
}

// size returns how much of the host's disk one snapshot's files have, with the whole memory that was made of a diff.
func (s *Store) size(uid string) int64 { return bytesIn(s.path(uid)) }
