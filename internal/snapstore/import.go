//go:build linux

package snapstore

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/step"
)

// ImportOptions are the options of Import.
type ImportOptions struct {
	// Name is what the snapshot is called here, "machine/snapshot". Optional: what it was called where it was exported.
	Name string
	// Trusted are the keys that exports may be signed with.
	Trusted []ed25519.PublicKey
	// Unsigned lets in what nobody, or somebody unknown, has signed. A snapshot is input to the VMM: who made it may do to the guest, and through what is wrong with the VMM to the host, what he wants.
	Unsigned bool
	// MaxBytes bounds how many bytes of data the snapshot's own files have: not those that Keep takes. Optional: what there is space for.
	MaxBytes int64
	// Keep takes a file that machines share, kernel, initrd, base or a drive, to where it is kept, and returns its path there. It is called once all is verified, with the hash of the file's content, 64
	// hexadecimal digits, and must not rely on the file at path once it has returned. Whoever calls Import sees to it that what was kept is not collected before Import returns: then the manifest names it.
	Keep func(ctx context.Context, path, sum string) (kept string, err error)
}

// Import makes a snapshot of an export. Nothing of it is visible before the whole is verified, and nothing is left when it fails. microvm.ErrInvalid says what is wrong with the export, or that nobody who
// is trusted has signed it; microvm.ErrIncompatible that it is of a newer program.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (m Manifest, err error) {
	if o.Name != "" { // before anything is read
		if err := s.free(o.Name); err != nil {
			return m, err
		}
	}
	u, err := newUnpacker(bufio.NewReaderSize(&cancelled{ctx, r}, chunk))
	if err != nil {
		return m, err
	}
	i := &importer{options: o, parts: u, sums: map[string]string{}}
	if err := i.begin(); err != nil {
		return m, err
	}
	if i.options.Name == "" {
		if i.options.Name = i.exported.Manifest.Name; microvm.ValidateSnapshotName(i.options.Name) != nil {
			return m, bad("its name is %.64q", i.options.Name)
		}
		if err := s.free(i.options.Name); err != nil {
			return m, fmt.Errorf("%w (give another name)", err)
		}
	}
	if i.draft, err = s.Begin(ctx); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, i.draft.Close()) }()
	return i.run(ctx, step.Begin("import", s.Hook))
}

// free says whether a name is one, and not taken.
func (s *Store) free(name string) error {
	if err := microvm.ValidateSnapshotName(name); err != nil {
		return err
	}
	if s.Taken(name) {
		return fmt.Errorf("snapshot %q: %w", name, microvm.ErrExists)
	}
	return nil
}

// cancelled ends a read with its context.
type cancelled struct {
	ctx context.Context
	io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// importer is one call of Import.
type importer struct {
	options  ImportOptions
	parts    *unpacker
	key      ed25519.PublicKey
	exported exported
	draft    *Draft
	written  int64             // of the snapshot's own files
	sums     map[string]string // by name
}

// begin reads who has signed the export and what is in it, and decides whether it is wanted.
func (i *importer) begin() error {
	var head header
	if err := i.parts.nextJSON(partHeader, &head); err != nil {
		return err
	}
	switch {
	case head.Version > exportVersion:
		return fmt.Errorf("%w: an export of version %d, this program reads up to %d", microvm.ErrIncompatible, head.Version, exportVersion)
	case head.Version < 1:
		return bad("version %d", head.Version)
	case len(head.Key) != 0 && len(head.Key) != ed25519.PublicKeySize:
		return bad("a key of %d bytes", len(head.Key))
	}
	if len(head.Key) > 0 {
		i.key = head.Key
	}
	if !i.options.Unsigned && !i.trusted() {
		if i.key == nil {
			return bad("nobody has signed it (ask for an unsigned one if you trust where it is from)")
		}
		return bad("it is signed with %x, which is none of the %d trusted keys", []byte(i.key), len(i.options.Trusted))
	}
	if err := i.parts.nextJSON(partManifest, &i.exported); err != nil {
		return err
	}
	return i.exported.check()
}

func (i *importer) trusted() bool {
	for _, key := range i.options.Trusted {
		if i.key.Equal(key) && len(i.key) == ed25519.PublicKeySize {
			return true
		}
	}
	return false
}

func (i *importer) run(ctx context.Context, steps *step.Sequence) (m Manifest, err error) {
	defer steps.End(&err)
	if err := steps.Do("receive", func() error { return i.receive(ctx) }, nil); err != nil {
		return m, err
	}
	m = i.exported.Manifest
	m.Origin = m.Token()
	m.Kind, m.Parent, m.Ephemeral, m.Maker = microvm.SnapshotFull, "", false, nil
	if err := steps.Do("keep", func() error { return i.keep(ctx, &m) }, nil); err != nil {
		return m, err
	}
	if err := steps.Do("seal", func() error { return i.seal(ctx, &m) }, nil); err != nil {
		return m, err
	}
	if err := steps.Do("place", i.draft.Place, nil); err != nil {
		return m, err
	}
	bind := func() error { return i.draft.Bind(i.options.Name) }
	return m, steps.Do("name", bind, func() error { return i.draft.Unbind(i.options.Name) })
}

// receive writes all files to the draft, and verifies the whole.
func (i *importer) receive(ctx context.Context) error {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(chunk), zstd.WithDecoderMaxWindow(chunk), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return err
	}
	defer z.Close()
	for _, file := range i.exported.Files {
		if err := i.unpack(ctx, z, file); err != nil {
			return err
		}
	}
	return i.parts.end(i.key)
}

// unpack writes one file.
func (i *importer) unpack(ctx context.Context, z *zstd.Decoder, file content) (err error) {
	f, err := os.OpenFile(i.draft.Path(file.Name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(file.Size); err != nil {
		return err
	}
	data := make([]byte, 0, chunk)
	for end := int64(0); ; {
		kind, payload, err := i.parts.next(string([]byte{partData, partEnd}))
		if err != nil {
			return err
		}
		if kind == partEnd {
			sum, err := hash(ctx, f)
			if err == nil && sum != string(payload) {
				err = bad("%s is not what was exported: its hash differs", file.Name)
			}
			i.sums[file.Name] = sum
			return err
		}
		at, data, err := decode(z, payload, data[:0])
		if err != nil {
			return bad("%s: after byte %d: %v", file.Name, end, err)
		}
		if at < end || at > file.Size-int64(len(data)) {
			return bad("%s: %d bytes for byte %d, after %d of %d", file.Name, len(data), at, end, file.Size)
		}
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
		if !file.shared() {
			i.written += int64(len(data))
		}
		if end = at + int64(len(data)); i.options.MaxBytes > 0 && i.written > i.options.MaxBytes {
			return fmt.Errorf("%w: the snapshot has more than %d bytes of data", microvm.ErrExhausted, i.options.MaxBytes)
		}
	}
}

// decode unpacks data, which has the capacity for all that it may be, and says where it belongs.
func decode(z *zstd.Decoder, payload, data []byte) (at int64, _ []byte, err error) {
	if len(payload) < 8 {
		return 0, nil, errors.New("no offset")
	}
	offset := binary.BigEndian.Uint64(payload)
	if offset > maxSize {
		return 0, nil, fmt.Errorf("offset %d", offset)
	}
	data, err = z.DecodeAll(payload[8:], data)
	if err == nil && len(data) == 0 {
		err = errors.New("no data")
	}
	return int64(offset), data, err
}

// keep has the files that machines share taken out of the draft.
func (i *importer) keep(ctx context.Context, m *Manifest) error {
	m.Shared = state.Files{}
	if n := len(m.Spec.Drives); n > 0 {
		m.Shared.Drives = make([]string, n)
	}
	for _, file := range i.exported.Files {
		if !file.shared() {
			continue
		}
		var place *string
		switch file.Name {
		case kernelFile:
			place = &m.Shared.Kernel
		case initrdFile:
			place = &m.Shared.Initrd
		case baseFile:
			place = &m.Shared.Base
		default:
			number, _ := strconv.Atoi(strings.TrimPrefix(file.Name, drivePrefix)) // which check has seen
			place = &m.Shared.Drives[number]
		}
		path := i.draft.Path(file.Name)
		kept, err := i.options.Keep(ctx, path, i.sums[file.Name])
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		*place = kept
	}
	return nil
}

// seal makes a snapshot of the draft, and sees that what can be read of it is what came.
func (i *importer) seal(ctx context.Context, m *Manifest) error {
	if err := i.draft.Seal(ctx, i.options.Name, m); err != nil {
		return err
	}
	for name, file := range m.Files {
		if file.SHA256 != i.sums[name] {
			return fmt.Errorf("%s was written, and something else is read (is the host's disk broken?)", i.draft.Path(name))
		}
	}
	return nil
}
