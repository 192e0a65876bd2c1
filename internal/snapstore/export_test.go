//go:build linux

package snapstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// shelf keeps what is imported in a directory, by its sum.
type shelf string

func (s shelf) keep(_ context.Context, path, sum string) (string, error) {
	kept := filepath.Join(string(s), sum)
	return kept, os.Rename(path, kept)
}

// exportable makes a diff over a snapshot, of a machine with a kernel, a base and two drives.
func exportable(t testing.TB, s *Store) Manifest {
	t.Helper()
	shared := t.TempDir()
	for name, letter := range map[string]byte{"kernel": 'k', "base": 'b', "one": 'u', "two": 'v'} {
		sparse(t, filepath.Join(shared, name), 64, map[int64]byte{7: letter, 63: letter})
	}
	below := snapshot(t, s, "vm/below", "", map[int64]byte{1: 'a', 300: 'b', 900: 'c'})
	d, m := draft(t, s, below.UID, map[int64]byte{2: 'd', 300: 'e', 900: 0})
	m.Spec.Drives = []microvm.Drive{{Path: "/data/one", ReadOnly: true}, {Path: "/data/two", ReadOnly: true}}
	m.Shared = state.Files{Kernel: filepath.Join(shared, "kernel"), Base: filepath.Join(shared, "base"), Drives: []string{filepath.Join(shared, "one"), filepath.Join(shared, "two")}}
	m.Labels, m.Ephemeral = map[string]string{"team": "a"}, true
	if err := commit(t.Context(), d, m, "vm/over"); err != nil {
		t.Fatal(err)
	}
	return *m
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) []ed25519.PublicKey {
	return []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
}

func export(t testing.TB, s *Store, uid string, key ed25519.PrivateKey) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.Export(t.Context(), uid, &out, ExportOptions{Key: key}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// nothing fails the test unless a store is empty.
func nothing(t testing.TB, s *Store) {
	t.Helper()
	for _, dir := range []string{"names", "all", "new"} {
		if left := entries(t, s, dir); len(left) > 0 {
			t.Errorf("%s has %q", dir, left)
		}
	}
}

// TestImportEqualsExport, bytes, holes and what is written down; what is a diff here is a full one there.
func TestImportEqualsExport(t *testing.T) {
	from, to, key, kept := newStore(t), newStore(t), newKey(t), shelf(t.TempDir())
	m := exportable(t, from)
	text := export(t, from, m.UID, key)
	if len(text) > 256<<10 {
		t.Errorf("%d bytes: holes were exported", len(text))
	}
	got, err := to.Import(t.Context(), bytes.NewReader(text), ImportOptions{Name: "other/warm", Trusted: public(key), Keep: kept.keep})
	if err != nil {
		t.Fatal(err)
	}
	read, err := to.Read(got.UID)
	if err != nil || read.Name != "other/warm" || read.UID == m.UID || read.Kind != microvm.SnapshotFull || read.Parent != "" || read.Ephemeral || read.Machine != m.Machine || !read.Created.Equal(m.Created) || read.Labels["team"] != "a" {
		t.Errorf("%+v, %v", read, err)
	}
	if read.Token() != m.UID || m.Token() != m.UID {
		t.Errorf("what stands for it was told %s, and is told %s and %s", m.UID, read.Token(), m.Token())
	}
	third := newStore(t) // exported once more
	if again, err := third.Import(t.Context(), bytes.NewReader(export(t, to, got.UID, nil)), ImportOptions{Unsigned: true, Keep: kept.keep}); err != nil || again.Token() != m.UID || again.UID == got.UID {
		t.Errorf("%+v, %v", again, err)
	}
	if all := entries(t, to, "all/"+got.UID); !slices.Equal(all, []string{"checked.json", "disk", "lock", "manifest.json", "memory", "state"}) {
		t.Errorf("%q", all)
	}
	if err := to.Verify(t.Context(), got.UID); err != nil {
		t.Error(err)
	}
	holds(t, to, got.UID, map[int64]byte{1: 'a', 2: 'd', 300: 'e', 900: 0})
	if read.Shared.Initrd != "" || len(read.Shared.Drives) != 2 {
		t.Fatalf("%+v", read.Shared)
	}
	for made, original := range map[string]string{
		to.Path(&read, State): from.Path(&m, State), to.Path(&read, Disk): from.Path(&m, Disk),
		read.Shared.Kernel: m.Shared.Kernel, read.Shared.Base: m.Shared.Base, read.Shared.Drives[0]: m.Shared.Drives[0], read.Shared.Drives[1]: m.Shared.Drives[1],
	} {
		same(t, made, original)
		if disk.Used(made) > disk.Used(original)+64<<10 {
			t.Errorf("%s has %d bytes on disk, %s %d", made, disk.Used(made), original, disk.Used(original))
		}
	}
	if _, err := to.Import(t.Context(), bytes.NewReader(text), ImportOptions{Name: "other/warm", Trusted: public(key), Keep: kept.keep}); !errors.Is(err, microvm.ErrExists) {
		t.Error(err)
	}
	for _, want := range []error{nil, microvm.ErrExists} { // by its own name
		own, err := to.Import(t.Context(), bytes.NewReader(text), ImportOptions{Trusted: public(key), Keep: kept.keep})
		if !errors.Is(err, want) || err == nil && own.Name != m.Name {
			t.Errorf("%s, %v", own.Name, err)
		}
	}
}

// TestWhoSignedIt decides whether an export is let in.
func TestWhoSignedIt(t *testing.T) {
	from, key, other := newStore(t), newKey(t), newKey(t)
	m := exportable(t, from)
	signed, unsigned := export(t, from, m.UID, key), export(t, from, m.UID, nil)
	for what, c := range map[string]struct {
		text []byte
		o    ImportOptions
		ok   bool
	}{
		"the right key":             {signed, ImportOptions{Trusted: append(public(other), public(key)...)}, true},
		"a wrong key":               {signed, ImportOptions{Trusted: public(other)}, false},
		"no key":                    {signed, ImportOptions{}, false},
		"no signature":              {unsigned, ImportOptions{Trusted: public(key)}, false},
		"an empty key":              {unsigned, ImportOptions{Trusted: []ed25519.PublicKey{nil, {}}}, false},
		"no signature, asked for":   {unsigned, ImportOptions{Unsigned: true}, true},
		"somebody's, asked for":     {signed, ImportOptions{Unsigned: true, Trusted: public(other)}, true},
		"another's name on it":      {resigned(t, signed, other, public(key)[0]), ImportOptions{Trusted: public(key)}, false},
		"its signature taken away":  {resigned(t, signed, nil, public(key)[0]), ImportOptions{Trusted: public(key)}, false},
		"a signature without a key": {resigned(t, signed, other, nil), ImportOptions{Unsigned: true}, false},
		"signed again":              {resigned(t, signed, other, public(other)[0]), ImportOptions{Trusted: public(other)}, true},
	} {
		to := newStore(t)
		c.o.Name, c.o.Keep = "vm/warm", shelf(t.TempDir()).keep
		_, err := to.Import(t.Context(), bytes.NewReader(c.text), c.o)
		if c.ok && err != nil || !c.ok && !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		if !c.ok {
			nothing(t, to)
		}
	}
}

// part is one of an export.
type part struct {
	kind    byte
	payload []byte
}

func split(t testing.TB, text []byte) (parts []part) {
	t.Helper()
	for text = text[len(magic):]; len(text) > 0; {
		length := binary.BigEndian.Uint32(text[1:])
		parts = append(parts, part{text[0], slices.Clone(text[5 : 5+length])})
		text = text[5+length:]
	}
	return parts
}

// join makes an export of parts, with a sum and a signature that fit.
func join(t testing.TB, key ed25519.PrivateKey, parts ...part) []byte {
	t.Helper()
	var out bytes.Buffer
	p, err := newPacker(&out)
	for _, one := range parts {
		if err == nil && one.kind != partSum {
			err = p.put(one.kind, one.payload)
		}
	}
	if err == nil {
		err = p.seal(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func resigned(t testing.TB, text []byte, key ed25519.PrivateKey, named ed25519.PublicKey) []byte {
	t.Helper()
	parts := split(t, text)
	head, err := json.Marshal(header{Version: exportVersion, Key: named})
	if err != nil {
		t.Fatal(err)
	}
	parts[0].payload = head
	return join(t, key, parts...)
}

// TestEachByteCounts: none can be changed, and the text can't end early or go on.
func TestEachByteCounts(t *testing.T) {
	from, key := newStore(t), newKey(t)
	d, m := draft(t, from, "", nil)
	m.Shared.Kernel = filepath.Join(t.TempDir(), "kernel")
	sparse(t, m.Shared.Kernel, 3, map[int64]byte{1: 'k'})
	for _, file := range []string{Memory, Disk} { // small: there are thousands of imports
		if err := os.Truncate(d.Path(file), 4*page); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(t.Context(), d, m, "vm/small"); err != nil {
		t.Fatal(err)
	}
	text := export(t, from, m.UID, key)
	to, kept := newStore(t), t.TempDir()
	try := func(what string, at int, text []byte) {
		_, err := to.Import(t.Context(), bytes.NewReader(text), ImportOptions{Name: "vm/warm", Trusted: public(key), Keep: shelf(kept).keep})
		if !errors.Is(err, microvm.ErrInvalid) && !errors.Is(err, microvm.ErrIncompatible) {
			t.Errorf("%s at %d: %v", what, at, err)
		}
	}
	for at := range text {
		changed := slices.Clone(text)
		changed[at] ^= 1 << (at % 8)
		try("changed", at, changed)
		if at%16 == 0 || len(text)-at < 80 {
			try("cut", at, text[:at])
		}
	}
	try("longer", len(text), append(slices.Clone(text), 0))
	nothing(t, to)
	if all, err := os.ReadDir(kept); err != nil || len(all) > 0 {
		t.Errorf("kept %v, %v: it was not verified", all, err)
	}
}

// TestHostileExports: each has a sum that fits, and nothing gets out of what it may say.
func TestHostileExports(t *testing.T) {
	from := newStore(t)
	good := split(t, export(t, from, exportable(t, from).UID, nil))
	var whole exported
	if err := json.Unmarshal(good[1].payload, &whole); err != nil {
		t.Fatal(err)
	}
	manifest := func(change func(e *exported)) []byte {
		e := whole
		e.Files = slices.Clone(whole.Files)
		change(&e)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return join(t, nil, append([]part{good[0], {partManifest, text}}, good[2:]...)...)
	}
	named := func(name string) []byte { return manifest(func(e *exported) { e.Files[0].Name = name }) }
	data := slices.IndexFunc(good, func(p part) bool { return p.kind == partData })
	changed := func(change func(parts []part) []part) []byte { return join(t, nil, change(slices.Clone(good))...) }
	offset := func(at uint64) []byte {
		return changed(func(parts []part) []part {
			parts[data].payload = slices.Concat(binary.BigEndian.AppendUint64(nil, at), parts[data].payload[8:])
			return parts
		})
	}
	for what, text := range map[string][]byte{
		"nothing": nil, "something else": []byte("PK\x03\x04" + strings.Repeat("x", 100)),
		"a path":          named("../../../../etc/cron.d/x"),
		"an absolute one": named("/etc/passwd"),
		"the manifest":    named(manifestFile),
		"the lock":        named(lockFile),
		"a drive of none": named("drive2"), "a drive before": named("drive-1"), "a drive twice": named("drive01"), "an empty name": named(""),
		"a file twice":            manifest(func(e *exported) { e.Files = append(e.Files, e.Files[0]) }),
		"a file less":             manifest(func(e *exported) { e.Files = e.Files[1:] }),
		"no files":                manifest(func(e *exported) { e.Files = nil }),
		"a size of 0":             manifest(func(e *exported) { e.Files[0].Size = 0 }),
		"a negative":              manifest(func(e *exported) { e.Files[0].Size = -1 }),
		"a vast one":              manifest(func(e *exported) { e.Files[0].Size = 1 << 62 }),
		"a larger one":            manifest(func(e *exported) { e.Files[0].Size++ }),
		"a bad spec":              manifest(func(e *exported) { e.Manifest.Spec.VCPUs = 1000 }),
		"more memory than it has": manifest(func(e *exported) { e.Manifest.Spec.MemoryMiB-- }),
		"memory of none":          manifest(func(e *exported) { e.Manifest.Spec.MemoryMiB = 0 }),
		"a larger disk": manifest(func(e *exported) {
			e.Manifest.Spec.Diskless, e.Manifest.Spec.LayerMiB = false, 16
			e.Files[slices.IndexFunc(e.Files, func(c content) bool { return c.Name == Disk })].Size = 16<<20 + 1
		}),
		"a larger root": manifest(func(e *exported) {
			e.Manifest.Spec.Diskless, e.Manifest.Spec.Rootfs, e.Manifest.Spec.RootfsWritable = false, "/root", true
		}),
		"a drive that is not in it": manifest(func(e *exported) {
			e.Manifest.Spec.Drives = append(e.Manifest.Spec.Drives, microvm.Drive{Path: "/dev/sda", ReadOnly: true})
		}),
		"a drive that is writable": manifest(func(e *exported) {
			e.Manifest.Spec.Drives = []microvm.Drive{{Path: "/data/one", ReadOnly: true}, {Path: "/dev/sda"}}
		}),
		"no uid":         manifest(func(e *exported) { e.Manifest.UID = "x" }),
		"another origin": manifest(func(e *exported) { e.Manifest.Origin = strings.Repeat("x", 1000) }),
		"no name":        manifest(func(e *exported) { e.Manifest.Name = "../x" }),
		"a bad label":    manifest(func(e *exported) { e.Manifest.Labels = map[string]string{"a\n": ""} }),
		"a vast offset":  offset(1<<64 - 1), "one beyond the end": offset(1 << 30), "one across the end": offset(1),
		"data twice":   changed(func(parts []part) []part { return slices.Insert(parts, data, parts[data]) }),
		"no data":      changed(func(parts []part) []part { return slices.Delete(parts, data, data+1) }),
		"no frame":     changed(func(parts []part) []part { parts[data].payload = parts[data].payload[:8]; return parts }),
		"a short one":  changed(func(parts []part) []part { parts[data].payload = nil; return parts }),
		"no zstd":      changed(func(parts []part) []part { parts[data].payload = make([]byte, 100); return parts }),
		"too large":    changed(func(parts []part) []part { parts[data].payload = make([]byte, most[partData]+1); return parts }),
		"a bomb":       changed(func(parts []part) []part { parts[data].payload = bomb(t); return parts }),
		"no header":    changed(func(parts []part) []part { return parts[1:] }),
		"two headers":  changed(func(parts []part) []part { return slices.Insert(parts, 0, parts[0]) }),
		"no end":       changed(func(parts []part) []part { return parts[:len(parts)-2] }),
		"another part": changed(func(parts []part) []part { return slices.Insert(parts, 2, part{'X', nil}) }),
	} {
		to := newStore(t)
		_, err := to.Import(t.Context(), bytes.NewReader(text), ImportOptions{Unsigned: true, Keep: shelf(t.TempDir()).keep})
		if !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		nothing(t, to)
	}
	grows := whole // as a record it would be larger than what is read of one
	grows.Manifest.Unfrozen = strings.Repeat("<", 180_000)
	text, err := json.Marshal(grows)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("\\u003c"), []byte("<"))
	large := newStore(t)
	if _, err := large.Import(t.Context(), bytes.NewReader(join(t, nil, append([]part{good[0], {partManifest, text}}, good[2:]...)...)), ImportOptions{Unsigned: true, Keep: shelf(t.TempDir()).keep}); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("a manifest that can't be read again: %v", err)
	}
	nothing(t, large)
	newer := changed(func(parts []part) []part { parts[0].payload = []byte(`{"version":2}`); return parts })
	to := newStore(t)
	o := ImportOptions{Name: "vm/warm", Unsigned: true, Keep: shelf(t.TempDir()).keep}
	if _, err := to.Import(t.Context(), bytes.NewReader(newer), o); !errors.Is(err, microvm.ErrIncompatible) {
		t.Error(err)
	}
	o.MaxBytes = 1000
	if _, err := to.Import(t.Context(), bytes.NewReader(join(t, nil, good...)), o); !errors.Is(err, microvm.ErrExhausted) {
		t.Error(err)
	}
	nothing(t, to)
	o.MaxBytes = 1 << 20
	if _, err := to.Import(t.Context(), bytes.NewReader(join(t, nil, good...)), o); err != nil {
		t.Error("what is hostile in none of these ways:", err)
	}
}

// bomb is data that becomes 64 MiB.
func bomb(t testing.TB) []byte {
	t.Helper()
	z := encoder(t)
	defer z.Close()
	return z.EncodeAll(make([]byte, 64<<20), make([]byte, 8))
}

// TestExportOfDamage is refused, and what was written can't be imported.
func TestExportOfDamage(t *testing.T) {
	s, to := newStore(t), newStore(t)
	m := exportable(t, s)
	below, err := s.Read(m.Parent)
	if err != nil {
		t.Fatal(err)
	}
	d, other := draft(t, s, "", map[int64]byte{4: 'x'})
	other.Shared = m.Shared
	other.Spec.Drives = m.Spec.Drives
	if err := commit(t.Context(), d, other, "vm/full"); err != nil {
		t.Fatal(err)
	}
	for uid, path := range map[string]string{m.UID: s.Path(&below, Memory), other.UID: s.Path(other, Disk)} {
		flip(t, path, page+1)
		var out bytes.Buffer
		if err := s.Export(t.Context(), uid, &out, ExportOptions{}); !errors.Is(err, microvm.ErrIncompatible) || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Error(err)
		}
		if _, err := to.Import(t.Context(), &out, ImportOptions{Name: "vm/warm", Unsigned: true, Keep: shelf(t.TempDir()).keep}); !errors.Is(err, microvm.ErrInvalid) {
			t.Error(err)
		}
		flip(t, path, page+1)
		if err := s.Export(t.Context(), uid, io.Discard, ExportOptions{}); err != nil {
			t.Error(err)
		}
	}
	nothing(t, to)
}

// TestImportFails at each step, or is interrupted, and leaves nothing.
func TestImportFails(t *testing.T) {
	from := newStore(t)
	text := export(t, from, exportable(t, from).UID, nil)
	o := func() ImportOptions {
		return ImportOptions{Name: "vm/warm", Unsigned: true, Keep: shelf(t.TempDir()).keep}
	}
	s := newStore(t)
	met := points(t, s, func() error {
		_, err := s.Import(t.Context(), bytes.NewReader(text), o())
		return err
	})
	injected := errors.New("injected")
	for _, point := range met {
		s := newStore(t)
		s.Hook = func(at string) error {
			if at == point {
				return injected
			}
			return nil
		}
		if _, err := s.Import(t.Context(), bytes.NewReader(text), o()); !errors.Is(err, injected) {
			t.Errorf("%s: %v", point, err)
		}
		nothing(t, s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ends := io.MultiReader(bytes.NewReader(text[:len(text)/2]), cancelling(cancel), bytes.NewReader(text[len(text)/2:]))
	s = newStore(t)
	if _, err := s.Import(ctx, ends, o()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothing(t, s)
}

// cancelling ends a context when it is read.
type cancelling context.CancelFunc

func (c cancelling) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

// FuzzImport: whatever it is, it is imported as a whole or leaves nothing.
func FuzzImport(f *testing.F) {
	from := newStore(f)
	text := export(f, from, exportable(f, from).UID, nil)
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte(magic))
	f.Add(slices.Concat(text, text))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := newStore(t)
		m, err := s.Import(t.Context(), bytes.NewReader(text), ImportOptions{Name: "vm/warm", Unsigned: true, MaxBytes: 1 << 20, Keep: shelf(t.TempDir()).keep})
		if err != nil {
			nothing(t, s)
			return
		}
		if err := s.Verify(t.Context(), m.UID); err != nil {
			t.Error(err)
		}
	})
}

func encoder(t testing.TB) *zstd.Encoder {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return z
}
