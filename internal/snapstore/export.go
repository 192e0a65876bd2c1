//go:build linux

package snapstore

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// ExportOptions are the options of Export.
type ExportOptions struct {
	// Key signs the export. Optional: one without can only be imported by who asks for that.
	Key ed25519.PrivateKey
}

// Export writes all that a restore of a snapshot needs, elsewhere too: the snapshot, which is a full one there, and what its machine boots from. Holes take no space in it. When it returns an error
// what was written is no export. microvm.ErrIncompatible names a file that is not what was written.
func (s *Store) Export(ctx context.Context, uid string, w io.Writer, o ExportOptions) error {
	if o.Key != nil && len(o.Key) != ed25519.PrivateKeySize {
		return &microvm.FieldError{Field: "ExportOptions.Key", Value: len(o.Key), Reason: "must be an ed25519 key of 64 bytes"}
	}
	hold, m, err := s.Hold(ctx, uid)
	if err != nil {
		return err
	}
	defer hold.Release()
	e := &exporter{Store: s, manifest: m}
	defer e.close()
	if err := e.open(ctx); err != nil {
		return err
	}
	return e.write(ctx, w, o.Key)
}

// exporter is one call of Export.
type exporter struct {
	*Store
	manifest Manifest
	contents []content
	files    []*os.File
}

func (e *exporter) close() {
	for _, f := range e.files {
		f.Close()
	}
}

// open opens all files before anything is written.
func (e *exporter) open(ctx context.Context) error {
	m := &e.manifest
	if m.Kind == microvm.SnapshotDiff { // the sum of its whole memory is written nowhere
		if err := e.Verify(ctx, m.UID); err != nil {
			return err
		}
	}
	memory, err := e.Memory(ctx, m)
	if err != nil {
		return err
	}
	paths := [][2]string{{State, e.Path(m, State)}, {Memory, memory}, {kernelFile, m.Shared.Kernel}, {initrdFile, m.Shared.Initrd}, {baseFile, m.Shared.Base}}
	if _, ok := m.Files[Disk]; ok {
		paths = append(paths, [2]string{Disk, e.Path(m, Disk)})
	}
	for i, path := range m.Shared.Drives {
		paths = append(paths, [2]string{drivePrefix + strconv.Itoa(i), path})
	}
	for _, one := range paths {
		if one[1] == "" {
			continue
		}
		if err := e.add(one[0], one[1]); err != nil {
			return fmt.Errorf("%w: snapshot %s: %w", microvm.ErrIncompatible, m.Name, err)
		}
	}
	return nil
}

func (e *exporter) add(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	e.files = append(e.files, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		return fmt.Errorf("%s is no regular file that can be exported", path)
	}
	e.contents = append(e.contents, content{Name: name, Size: info.Size()})
	return nil
}

func (e *exporter) write(ctx context.Context, w io.Writer, key ed25519.PrivateKey) error {
	p, err := newPacker(w)
	if err != nil {
		return err
	}
	head := header{Version: exportVersion}
	if key != nil {
		head.Key = key.Public().(ed25519.PublicKey)
	}
	if err := p.putJSON(partHeader, head); err != nil {
		return err
	}
	m := e.manifest
	m.Kind, m.Parent, m.Shared, m.Ephemeral, m.Maker = microvm.SnapshotFull, "", state.Files{}, false, nil
	if err := p.putJSON(partManifest, exported{Manifest: m, Files: e.contents}); err != nil {
		return err
	}
	// One thread and small windows: an import has to hold as much.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(chunk))
	if err != nil {
		return err
	}
	defer z.Close()
	for i, file := range e.contents {
		if err := e.pack(ctx, p, z, e.files[i], file); err != nil {
			return err
		}
	}
	return p.seal(key)
}

// pack writes a file's data and its sum, which is that of the manifest where that has one.
func (e *exporter) pack(ctx context.Context, p *packer, z *zstd.Encoder, f *os.File, file content) error {
	sum, err := hash(ctx, f)
	if err != nil {
		return err
	}
	m := &e.manifest
	if known := m.Files[file.Name]; known.Name == filepath.Base(f.Name()) && known.SHA256 != sum {
		return fmt.Errorf("%w: snapshot %s: %s is not what was written", microvm.ErrIncompatible, m.Name, known.Name)
	}
	data, packed := make([]byte, chunk), make([]byte, 0, most[partData])
	err = extents(ctx, f, file.Size, func(at, length int64, hole bool) error {
		if hole {
			return nil
		}
		if _, err := io.ReadFull(io.NewSectionReader(f, at, length), data[:length]); err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		packed = z.EncodeAll(data[:length], binary.BigEndian.AppendUint64(packed[:0], uint64(at)))
		return p.put(partData, packed)
	})
	if err != nil {
		return err
	}
	return p.put(partEnd, []byte(sum))
}
