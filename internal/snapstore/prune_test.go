//go:build linux

package snapstore

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/record"
)

// aged makes snapshots of two machines, a minute apart: a/s0 … a/s3, of which s2 is over s1 and s3 over s2, then b/s4, then c/s5, which is ephemeral.
func aged(t *testing.T, s *Store) (begin time.Time, uids map[string]string) {
	t.Helper()
	begin, uids = time.Now().Add(-time.Hour).Round(0), map[string]string{}
	for i, machine := range []string{"a", "a", "a", "a", "b", "c"} {
		parent := ""
		if i == 2 || i == 3 {
			parent = uids[fmt.Sprintf("a/s%d", i-1)]
		}
		d, m := draft(t, s, parent, map[int64]byte{1: 'x', 40: 'y'})
		m.Machine, m.Created, m.Ephemeral = machine, begin.Add(time.Duration(i)*time.Minute), machine == "c"
		name := fmt.Sprintf("%s/s%d", machine, i)
		if err := commit(t.Context(), d, m, name); err != nil {
			t.Fatal(err)
		}
		uids[name] = m.UID
	}
	return begin, uids
}

func TestPrune(t *testing.T) {
	one := newStore(t)
	_, uids := aged(t, one)
	size := one.size(uids["a/s0"])
	for what, c := range map[string]struct {
		policy func(begin time.Time) Policy
		used   string // by a machine
		held   string
		stay   []string
	}{
		"nothing asked for":          {func(time.Time) Policy { return Policy{} }, "", "", []string{"a/s0", "a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"by time":                    {func(b time.Time) Policy { return Policy{Before: b.Add(time.Minute)} }, "", "", []string{"a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"needed by what stays":       {func(b time.Time) Policy { return Policy{Before: b.Add(3 * time.Minute)} }, "", "", []string{"a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"needed by what goes":        {func(b time.Time) Policy { return Policy{Before: b.Add(time.Hour)} }, "", "", []string{"c/s5"}},
		"in use, with what it needs": {func(b time.Time) Policy { return Policy{Before: b.Add(time.Hour)} }, "a/s2", "", []string{"a/s1", "a/s2", "c/s5"}},
		"held":                       {func(b time.Time) Policy { return Policy{Before: b.Add(time.Hour)} }, "", "b/s4", []string{"b/s4", "c/s5"}},
		"by number":                  {func(time.Time) Policy { return Policy{Keep: 3} }, "", "", []string{"a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"by number, needed":          {func(time.Time) Policy { return Policy{Keep: 1} }, "", "", []string{"a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"by size":                    {func(time.Time) Policy { return Policy{MaxBytes: 5*size + size/2} }, "", "", []string{"a/s1", "a/s2", "a/s3", "b/s4", "c/s5"}},
		"by size, the chain":         {func(time.Time) Policy { return Policy{MaxBytes: 2*size + size/2} }, "", "", []string{"b/s4", "c/s5"}},
		"to nothing":                 {func(time.Time) Policy { return Policy{MaxBytes: 1} }, "", "", []string{"c/s5"}},
	} {
		s := newStore(t)
		begin, uids := aged(t, s)
		if c.held != "" {
			hold, _, err := s.Hold(t.Context(), uids[c.held])
			if err != nil {
				t.Fatal(err)
			}
			defer hold.Release()
		}
		inUse := func(uid string) (string, error) {
			if uid == uids[c.used] {
				return "clone", nil
			}
			return "", nil
		}
		dry := c.policy(begin)
		dry.DryRun = true
		would, err := s.Prune(t.Context(), dry, inUse)
		if names := listed(t, s); err != nil || len(names) != 6 {
			t.Errorf("%s: a dry run leaves %q, %v", what, names, err)
		}
		had, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		removed, err := s.Prune(t.Context(), c.policy(begin), inUse)
		if !reflect.DeepEqual(would, removed) {
			t.Errorf("%s: a dry run says %+v, and what goes is %+v", what, would, removed)
		}
		freed := int64(0)
		for _, one := range removed {
			freed += one.Bytes
		}
		if have, err := s.Bytes(); err != nil || had-have != freed {
			t.Errorf("%s: %d bytes are said to be free, there were %d and are %d, %v", what, freed, had, have, err)
		}
		if names := listed(t, s); err != nil || !slices.Equal(names, c.stay) || len(removed)+len(names) != 6 {
			t.Errorf("%s: %q stay, want %q, %d were removed, %v", what, names, c.stay, len(removed), err)
		}
	}
	failed := errors.New("failed")
	if removed, err := one.Prune(t.Context(), Policy{Keep: 1}, func(string) (string, error) { return "", failed }); !errors.Is(err, failed) || len(removed) > 0 || len(listed(t, one)) != 6 {
		t.Error(removed, err)
	}
	if _, err := one.Prune(t.Context(), Policy{Keep: -1}, nil); !errors.Is(err, microvm.ErrInvalid) {
		t.Error(err)
	}
}

// TestPruneBesideDamage: what is damaged stays and is told, what can't be deleted too, and what nobody needs goes all the same. What a newer program may need stays.
func TestPruneBesideDamage(t *testing.T) {
	all := Policy{Before: time.Now().Add(time.Hour)}
	s := newStore(t)
	_, uids := aged(t, s)
	if err := os.WriteFile(s.file(uids["b/s4"], manifestFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	for _, dry := range []bool{true, false} {
		all.DryRun = dry
		s.Hook = nil
		if !dry {
			s.Hook = func(point string) error {
				if point == "delete/unname:before" && s.leadsTo("a/s3", uids["a/s3"]) {
					s.Hook = nil
					return failed
				}
				return nil
			}
		}
		removed, err := s.Prune(t.Context(), all, nobodyUses)
		if !errors.Is(err, record.ErrDamaged) || !strings.Contains(err.Error(), "b/s4") || errors.Is(err, failed) == dry {
			t.Errorf("dry %t: %v", dry, err)
		}
		if want := map[bool]int{true: 4, false: 1}[dry]; len(removed) != want { // a/s3 could not go, and so not what it is over
			t.Errorf("dry %t: %d are removed, want %d", dry, len(removed), want)
		}
	}
	if err := s.Verify(t.Context(), uids["a/s3"]); err != nil {
		t.Error("what could not be deleted lacks something:", err)
	}
	if removed, err := s.Prune(t.Context(), all, nobodyUses); !errors.Is(err, record.ErrDamaged) || len(removed) != 3 {
		t.Errorf("%d are removed, %v", len(removed), err)
	}
	if err := s.Delete(t.Context(), uids["b/s4"], nobody); err != nil {
		t.Error(err)
	}
	all.MaxBytes = 1
	if removed, err := s.Prune(t.Context(), all, nobodyUses); err != nil || len(removed) != 0 || !slices.Equal(listed(t, s), []string{"c/s5"}) {
		t.Errorf("%d are removed, %v", len(removed), err)
	}

	s = newStore(t)
	_, uids = aged(t, s)
	m, err := s.Read(uids["b/s4"])
	if err != nil {
		t.Fatal(err)
	}
	if err := record.Write(s.file(m.UID, manifestFile), Version+1, m, false); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.Prune(t.Context(), all, nobodyUses); !errors.Is(err, microvm.ErrIncompatible) || len(removed) != 0 {
		t.Errorf("beside a newer one %d are removed, %v", len(removed), err)
	}
}

// TestPruneAfterTheClockWasSetBack: what is over another may then look older.
func TestPruneAfterTheClockWasSetBack(t *testing.T) {
	s := newStore(t)
	parent := ""
	for i := range 3 {
		d, m := draft(t, s, parent, map[int64]byte{1: 'x'})
		m.Created = time.Now().Add(-time.Duration(i) * time.Hour)
		if err := commit(t.Context(), d, m, fmt.Sprint("a/s", i)); err != nil {
			t.Fatal(err)
		}
		parent = m.UID
	}
	for _, dry := range []bool{true, false} {
		if removed, err := s.Prune(t.Context(), Policy{Before: time.Now().Add(time.Hour), DryRun: dry}, nobodyUses); err != nil || len(removed) != 3 {
			t.Errorf("dry %t: %d are removed, %v", dry, len(removed), err)
		}
	}
}

func nobodyUses(string) (string, error) { return "", nil }
