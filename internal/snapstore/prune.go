//go:build linux

package snapstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Policy says which snapshots go. A snapshot goes when one of its rules says so. The zero value lets all stay.
type Policy struct {
	// Before lets go what was made before that time. Optional.
	Before time.Time
	// Keep is how many of each machine's stay, the newest. Optional: all.
	Keep int
	// MaxBytes is how much of the host's disk all may have: the oldest go until that is so. Optional.
	MaxBytes int64
}

// Prune deletes the snapshots that a policy does not let stay, unless something needs them that stays itself: inUse says whether a machine does. Ephemeral ones, and those whose manifest can't be read, are
// left alone. It returns what it has deleted, also with an error.
func (s *Store) Prune(ctx context.Context, p Policy, inUse func(uid string) (user string, err error)) (removed []Manifest, err error) {
	if p.Keep < 0 || p.MaxBytes < 0 {
		return nil, &microvm.FieldError{Field: "Policy", Value: fmt.Sprintf("%+v", p), Reason: "must not be negative"}
	}
	doomed, err := s.doomed(p)
	if err != nil {
		return nil, err
	}
	// What is over another is younger: so it goes first, and the other can.
	slices.SortStableFunc(doomed, func(a, b Manifest) int { return b.Created.Compare(a.Created) })
	for _, m := range doomed {
		gone, err := s.prune(ctx, &m, inUse)
		if err != nil {
			return removed, err
		}
		if gone {
			removed = append(removed, m)
		}
	}
	if p.MaxBytes == 0 {
		return removed, nil
	}
	more, err := s.shrink(ctx, p.MaxBytes, inUse)
	return append(removed, more...), err
}

// doomed returns what time and number don't let stay.
func (s *Store) doomed(p Policy) (doomed []Manifest, err error) {
	all, err := s.prunable()
	if err != nil {
		return nil, err
	}
	of := map[string]int{}
	for _, m := range slices.Backward(all) {
		of[m.Machine]++
		if m.Created.Before(p.Before) || p.Keep > 0 && of[m.Machine] > p.Keep {
			doomed = append(doomed, m)
		}
	}
	return doomed, nil
}

// prunable returns what a policy is about, the oldest first.
func (s *Store) prunable() (all []Manifest, err error) {
	listed, err := s.List()
	for _, one := range listed {
		if one.Problem == nil && !one.Ephemeral {
			all = append(all, one.Manifest)
		}
	}
	slices.SortStableFunc(all, func(a, b Manifest) int { return a.Created.Compare(b.Created) })
	return all, err
}

// shrink deletes the oldest that nothing needs, one by one, until all have no more than so many bytes: when the last that is over another has gone, that can go.
func (s *Store) shrink(ctx context.Context, most int64, inUse func(string) (string, error)) (removed []Manifest, err error) {
	for again := true; again; {
		again = false
		all, err := s.prunable()
		if err != nil {
			return removed, err
		}
		for _, m := range all {
			if have, err := s.Bytes(); err != nil || have <= most {
				return removed, err
			}
			gone, err := s.prune(ctx, &m, inUse)
			if err != nil {
				return removed, err
			}
			if gone {
				removed, again = append(removed, m), true
				break // the oldest may be free now
			}
		}
	}
	return removed, nil
}

// prune deletes one, unless something needs it. It does not wait for who holds it.
func (s *Store) prune(ctx context.Context, m *Manifest, inUse func(string) (string, error)) (gone bool, err error) {
	if err := context.Cause(ctx); err != nil {
		return false, err
	}
	const glance = 5 * time.Millisecond // a lock that is free is had at once
	looking, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	err = s.Delete(looking, m.UID, func() (string, error) { return inUse(m.UID) })
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, microvm.ErrBusy) || errors.Is(err, microvm.ErrNotFound):
		return false, context.Cause(ctx)
	}
	return false, fmt.Errorf("prune %s: %w", m.Name, err)
}

// Size returns how much of the host's disk one snapshot's files have, with the whole memory that was made of a diff.
func (s *Store) Size(uid string) int64 { return bytesIn(filepath.Join(s.dir, "all", uid)) }
