package runtimetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

var archives = group{"archives", []testCase{
	{"export and import", func(c *checker) {
		vm, key := c.in("one", microvm.StateRunning), newKey()
		first := c.snapshot(vm, "first", &microvm.SnapshotOptions{Labels: map[string]string{"k": "v"}})
		text := c.export("one/first", &microvm.ExportOptions{Key: key})
		c.state(vm, microvm.StateRunning)
		there, trusted := c.elsewhere(), &microvm.ImportOptions{Trusted: []ed25519.PublicKey{newKey().Public().(ed25519.PublicKey), key.Public().(ed25519.PublicKey)}}
		info := there.imports("", text, trusted)
		if info.Name != "one/first" || info.UID == first.UID || info.Machine != first.Machine || info.Kind != microvm.SnapshotFull || info.Labels["k"] != "v" || info.Problem != "" {
			c.Errorf("imported: %+v", info)
		}
		there.ok(there.rt.VerifySnapshot(c.ctx, info.UID))
		there.leavesNothing("a name that is taken", func() {
			for _, name := range []string{"", "one/first"} {
				_, err := there.rt.ImportSnapshot(c.ctx, name, bytes.NewReader(text), trusted)
				c.is(err, microvm.ErrExists)
			}
		})
		there.imports("other/name", text, trusted)
		if got := there.snapshots(nil); !slices.Equal(got, []string{"one/first", "other/name"}) {
			c.Errorf("snapshots %q", got)
		}
		clone := there.restore("one/first", "two", nil)
		there.state(clone, microvm.StateRunning)
		c.ok(there.restore("other/name", "one", nil).Destroy(c.ctx))
		c.is(there.rt.DeleteSnapshot(c.ctx, "one/first"), microvm.ErrBusy)
		there.stop(clone)
		c.ok(clone.Start(c.ctx, nil))
	}},
	{"a diff is exported with what it is over", func(c *checker) {
		spec := c.h.Spec
		spec.TrackDirty = true
		vm, err := c.rt.Create(c.ctx, "one", spec)
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		diff := &microvm.SnapshotOptions{Diff: true}
		c.snapshot(vm, "first", diff)
		if second := c.snapshot(vm, "second", diff); second.Kind != microvm.SnapshotDiff {
			c.Fatalf("kind %s", second.Kind)
		}
		there := c.elsewhere()
		info := there.imports("", c.export("one/second", nil), &microvm.ImportOptions{Unsigned: true})
		if info.Name != "one/second" || info.Kind != microvm.SnapshotFull || info.Parent != "" {
			c.Errorf("imported: %+v", info)
		}
		there.state(there.restore("one/second", "two", nil), microvm.StateRunning)
	}},
	{"import nothing of who is not trusted", func(c *checker) {
		c.snapshot(c.in("one", microvm.StateRunning), "first", nil)
		key, other := newKey(), newKey()
		signed, unsigned, there := c.export("one/first", &microvm.ExportOptions{Key: key}), c.export("one/first", nil), c.elsewhere()
		trusted := &microvm.ImportOptions{Trusted: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}}
		for what, refused := range map[string]struct {
			text []byte
			o    *microvm.ImportOptions
		}{
			"nobody is trusted": {signed, nil},
			"another's":         {signed, &microvm.ImportOptions{Trusted: []ed25519.PublicKey{other.Public().(ed25519.PublicKey)}}},
			"not signed":        {unsigned, trusted},
			"half a key":        {signed, &microvm.ImportOptions{Trusted: []ed25519.PublicKey{trusted.Trusted[0][:16]}}},
			"nothing":           {nil, &microvm.ImportOptions{Unsigned: true}},
			"none":              {bytes.Repeat([]byte("none\n"), 100), &microvm.ImportOptions{Unsigned: true}},
			"cut":               {signed[:len(signed)-10], trusted},
			"cut, unsigned":     {unsigned[:len(unsigned)/2], &microvm.ImportOptions{Unsigned: true}},
			"longer":            {append(slices.Clone(signed), 'x'), trusted},
		} {
			there.refusesImport(what, refused.text, refused.o)
		}
		for i := range 16 { // one byte of it is another
			at := i * (len(signed) - 1) / 15
			there.refusesImport(fmt.Sprint("changed at ", at), changed(signed, at), trusted)
		}
		there.refusesImport("changed", changed(unsigned, len(unsigned)/2), &microvm.ImportOptions{Unsigned: true})
		there.imports("a/signed", signed, trusted)
		there.imports("a/unsigned", unsigned, &microvm.ImportOptions{Unsigned: true})
		there.imports("a/asked", signed, &microvm.ImportOptions{Unsigned: true})
	}},
	{"export and import nothing that makes no sense", func(c *checker) {
		c.snapshot(c.in("one", microvm.StateRunning), "first", nil)
		var out bytes.Buffer
		c.is(c.rt.ExportSnapshot(c.ctx, "one/none", &out, nil), microvm.ErrNotFound)
		c.is(c.rt.ExportSnapshot(c.ctx, "one/first", &out, &microvm.ExportOptions{Key: make([]byte, 5)}), microvm.ErrInvalid)
		ended, cancel := context.WithCancel(c.ctx)
		cancel()
		c.is(c.rt.ExportSnapshot(ended, "one/first", &out, nil), context.Canceled)
		if out.Len() > 0 {
			c.Errorf("%d bytes were written", out.Len())
		}
		failed := errors.New("failed")
		c.is(c.rt.ExportSnapshot(c.ctx, "one/first", failing{failed}, nil), failed)
		text, asked := c.export("one/first", nil), &microvm.ImportOptions{Unsigned: true}
		c.leavesNothing("imports", func() {
			_, err := c.rt.ImportSnapshot(c.ctx, "no-name", bytes.NewReader(text), asked)
			c.is(err, microvm.ErrInvalid)
			_, err = c.rt.ImportSnapshot(ended, "one/second", bytes.NewReader(text), asked)
			c.is(err, context.Canceled)
			_, err = c.rt.ImportSnapshot(c.ctx, "one/second", failing{failed}, asked)
			c.is(err, failed)
		})
		c.imports("one/second", text, asked)
	}},
	{"prune", func(c *checker) {
		one, two := c.in("one", microvm.StateRunning), c.in("two", microvm.StateRunning)
		for _, name := range []string{"a", "b", "c"} {
			c.snapshot(one, name, nil)
		}
		c.snapshot(two, "a", nil)
		clone := c.restore("one/a", "three", nil)
		c.prunes(nil)
		c.prunes(&microvm.PruneOptions{OlderThan: time.Hour})
		c.prunes(&microvm.PruneOptions{Keep: 1}, "one/b") // a machine runs from one/a
		c.stop(clone)
		c.prunes(&microvm.PruneOptions{Keep: 1}, "one/a")
		c.prunes(&microvm.PruneOptions{OlderThan: 1}, "one/c", "two/a")
		for _, o := range []microvm.PruneOptions{{Keep: -1}, {OlderThan: -1}, {MaxMiB: -1}, {MaxMiB: 1<<44 + 1}} {
			_, _, err := c.rt.PruneSnapshots(c.ctx, &o)
			c.is(err, microvm.ErrInvalid)
		}
	}},
	{"prune what only what goes is over", func(c *checker) {
		spec := c.h.Spec
		spec.TrackDirty = true
		vm, err := c.rt.Create(c.ctx, "one", spec)
		c.ok(err)
		c.ok(vm.Start(c.ctx, nil))
		diff := &microvm.SnapshotOptions{Diff: true}
		for _, name := range []string{"a", "b", "c"} {
			c.snapshot(vm, name, diff)
		}
		c.prunes(&microvm.PruneOptions{Keep: 1}) // one/c needs both
		c.ok(c.rt.FlattenSnapshot(c.ctx, "one/c"))
		c.prunes(&microvm.PruneOptions{Keep: 1}, "one/a", "one/b")
	}},
}}

func newKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// elsewhere is the case with another runtime, which shares nothing with the first.
func (c *checker) elsewhere() *checker {
	c.Helper()
	there := *c
	there.rt = c.h.New(c.T)
	return &there
}

func (c *checker) export(ref string, o *microvm.ExportOptions) []byte {
	c.Helper()
	var out bytes.Buffer
	c.ok(c.rt.ExportSnapshot(c.ctx, ref, &out, o))
	return out.Bytes()
}

func (c *checker) imports(name string, text []byte, o *microvm.ImportOptions) microvm.SnapshotInfo {
	c.Helper()
	info, err := c.rt.ImportSnapshot(c.ctx, name, bytes.NewReader(text), o)
	c.ok(err)
	return info
}

// refusesImport fails the case when an import works, or leaves something.
func (c *checker) refusesImport(what string, text []byte, o *microvm.ImportOptions) {
	c.Helper()
	c.leavesNothing(what, func() {
		if _, err := c.rt.ImportSnapshot(c.ctx, "an/import", bytes.NewReader(text), o); !errors.Is(err, microvm.ErrInvalid) && !errors.Is(err, microvm.ErrIncompatible) {
			c.Errorf("%s: %v", what, err)
		}
		if got := c.snapshots(nil); len(got) > 0 {
			c.Errorf("%s: snapshots %q", what, got)
		}
	})
}

func changed(text []byte, at int) []byte {
	text = slices.Clone(text)
	text[at] ^= 1 << (at % 8)
	return text
}

// failing is a reader and a writer that can't.
type failing struct{ error }

func (f failing) Read([]byte) (int, error)  { return 0, f.error }
func (f failing) Write([]byte) (int, error) { return 0, f.error }

// prunes fails the case unless these snapshots go, sorted by name, the others stay, and a dry run before says so and leaves all.
func (c *checker) prunes(o *microvm.PruneOptions, want ...string) {
	c.Helper()
	had := c.snapshots(nil)
	dry := microvm.PruneOptions{DryRun: true}
	if o != nil {
		dry = *o
		dry.DryRun = true
	}
	var bytes int64
	for _, run := range []*microvm.PruneOptions{&dry, o} {
		deleted, freed, err := c.rt.PruneSnapshots(c.ctx, run)
		c.ok(err)
		var names []string
		for _, info := range deleted {
			names = append(names, info.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) || run == o && freed != bytes {
			c.Errorf("%+v: %q with %d bytes go, want %q; a dry run said %d bytes", run, names, freed, want, bytes)
		}
		stay := slices.Clone(had)
		if run == o {
			stay = slices.DeleteFunc(stay, func(name string) bool { return slices.Contains(want, name) })
		}
		if got := c.snapshots(nil); !slices.Equal(got, stay) {
			c.Errorf("%+v: %q are left, want %q", run, got, stay)
		}
		bytes = freed
	}
}
