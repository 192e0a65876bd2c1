//go:build linux

package snapstore

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// An export is a text that says what it is, and parts: each has its kind, a byte; its length, four bytes, big-endian; and so many bytes.
//
//	H  JSON of header
//	M  JSON of exported: the manifest, and which files follow
//	   and for each file, in that order:
//	D  any number of times: an offset, eight bytes, big-endian, and a zstd frame of at most 1 MiB of the file. Offsets ascend; what is between is holes
//	E  the hash of the file, 64 hexadecimal digits: see hash
//	S  the sha512 of all before it, and, where it is signed, the ed25519 signature of signedText and that sum
//
// Nothing follows.
const (
	magic      = "microvm snapshot\n"
	signedText = "microvm snapshot export\x00"

	partHeader   = 'H'
	partManifest = 'M'
	partData     = 'D'
	partEnd      = 'E'
	partSum      = 'S'
)

// exportVersion is the version of exports that this package writes. It reads this and all older ones.
const exportVersion = 1

type header struct {
	Version int    `json:"version"`
	Key     []byte `json:"key,omitempty"` // Public, of whom has signed it. So a wrong one is told before anything is read.
}

type exported struct {
	Manifest Manifest  `json:"manifest"` // Of a full snapshot. Shared is empty.
	Files    []content `json:"files"`
}

// content is a file of an export: State, Memory, Disk, or one of what the machine boots from.
type content struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // Bytes.
}

// shared says whether the file is one of what machines boot from, not the snapshot's own.
func (c *content) shared() bool { return !slices.Contains([]string{State, Memory, Disk}, c.Name) }

// What a machine boots from, as an export names it: these, and drivePrefix with a number.
const (
	kernelFile  = "kernel"
	initrdFile  = "initrd"
	baseFile    = "base"
	drivePrefix = "drive"
)

// maxSize bounds a file of an export in bytes: no disk and no memory may be larger.
const maxSize = 16 << 40

// most is how long a part may be, in bytes, by its kind. Data that zstd can't make smaller has a few bytes more.
var most = map[byte]uint32{partHeader: 4 << 10, partManifest: 1 << 20, partData: 8 + chunk + chunk/64, partEnd: 64, partSum: sha512.Size + ed25519.SignatureSize}

// sum512 is a sha512 of what is written to it.
type sum512 interface {
	io.Writer
	Sum([]byte) []byte
}

// packer writes parts.
type packer struct {
	w   io.Writer
	sum sum512
}

func newPacker(w io.Writer) (*packer, error) {
	p := &packer{sum: sha512.New()}
	p.w = io.MultiWriter(w, p.sum)
	_, err := io.WriteString(p.w, magic)
	return p, err
}

func (p *packer) put(kind byte, payload []byte) error {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
	if _, err := p.w.Write(head); err != nil {
		return err
	}
	_, err := p.w.Write(payload)
	return err
}

func (p *packer) putJSON(kind byte, v any) error {
	text, err := json.Marshal(v)
	if err == nil && len(text) > int(most[kind]) {
		err = fmt.Errorf("%w: a manifest of %d bytes is too large to export", microvm.ErrUnsupported, len(text))
	}
	if err != nil {
		return err
	}
	return p.put(kind, text)
}

// seal ends an export.
func (p *packer) seal(key ed25519.PrivateKey) error {
	sum := p.sum.Sum(nil)
	if key == nil {
		return p.put(partSum, sum)
	}
	return p.put(partSum, append(sum, ed25519.Sign(key, append([]byte(signedText), sum...))...))
}

// unpacker reads parts. It believes nothing.
type unpacker struct {
	r   io.Reader
	sum sum512
	buf []byte
}

func newUnpacker(r io.Reader) (*unpacker, error) {
	u := &unpacker{r: r, sum: sha512.New(), buf: make([]byte, most[partData])}
	if err := u.read(u.buf[:len(magic)]); err != nil {
		return nil, err
	}
	if string(u.buf[:len(magic)]) != magic {
		return nil, bad("it is no export of a snapshot")
	}
	u.sum.Write(u.buf[:len(magic)])
	return u, nil
}

// bad says that an export can't be what this package wrote.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w export: %s", microvm.ErrInvalid, fmt.Sprintf(format, args...))
}

func (u *unpacker) read(p []byte) error {
	_, err := io.ReadFull(u.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return bad("it ends too early")
	}
	return err
}

// next returns the next part, which is one of the kinds. It is valid until the next call.
func (u *unpacker) next(kinds string) (kind byte, payload []byte, err error) {
	var head [5]byte
	if err := u.read(head[:]); err != nil {
		return 0, nil, err
	}
	kind = head[0]
	length := binary.BigEndian.Uint32(head[1:])
	if strings.IndexByte(kinds, kind) < 0 {
		return 0, nil, bad("a part %q where one of %q belongs", kind, kinds)
	}
	if length > most[kind] {
		return 0, nil, bad("a part %q of %d bytes, at most %d are known", kind, length, most[kind])
	}
	payload = u.buf[:length]
	if err := u.read(payload); err != nil {
		return 0, nil, err
	}
	if kind != partSum {
		u.sum.Write(head[:])
		u.sum.Write(payload)
	}
	return kind, payload, nil
}

func (u *unpacker) nextJSON(kind byte, v any) error {
	_, payload, err := u.next(string(rune(kind)))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return bad("part %q: %v", kind, err)
	}
	return nil
}

// end reads the sum, and the signature where there is a key, and that nothing follows.
func (u *unpacker) end(key ed25519.PublicKey) error {
	_, payload, err := u.next(string(rune(partSum)))
	if err != nil {
		return err
	}
	sum := u.sum.Sum(nil)
	if len(payload) < len(sum) || string(payload[:len(sum)]) != string(sum) {
		return bad("it is not what was exported: its sha512 differs")
	}
	signature := payload[len(sum):]
	if key == nil && len(signature) > 0 || key != nil && !ed25519.Verify(key, append([]byte(signedText), sum...), signature) {
		return bad("its signature is not that of its key")
	}
	switch _, err := io.ReadFull(u.r, u.buf[:1]); {
	case err == nil:
		return bad("something follows its end")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// check says whether an export has what a snapshot needs, each once, and nothing else.
func (e *exported) check() error {
	m := &e.Manifest
	labels := microvm.SnapshotOptions{Labels: m.Labels}
	if err := errors.Join(m.Spec.Validate(), labels.Validate()); err != nil {
		return bad("its manifest: %v", err)
	}
	if !state.ValidUID(m.Token()) {
		return bad("its uid is %.64q", m.Token())
	}
	seen := map[string]bool{}
	for _, file := range e.Files {
		if seen[file.Name] || !m.knows(file.Name) {
			return bad("a file %.64q that is there twice, or that no such snapshot has", file.Name)
		}
		if file.Size < 1 || file.Size > maxSize {
			return bad("%s of %d bytes", file.Name, file.Size)
		}
		if most, known := e.mostOf(file.Name); known && file.Size > most {
			return bad("%s of %d bytes, of a machine that has %d", file.Name, file.Size, most)
		}
		seen[file.Name] = true
	}
	for _, name := range []string{State, Memory, kernelFile} {
		if !seen[name] {
			return bad("it has no %s", name)
		}
	}
	for i, drive := range m.Spec.Drives { // else a restore would take what is at that path of this host
		if name := drivePrefix + strconv.Itoa(i); !drive.ReadOnly || !seen[name] {
			return bad("%s is writable, or not in it: no snapshot has such a one", name)
		}
	}
	return nil
}

// mostOf returns how large a file may be by what its machines count for, where that is known: limits are kept by that.
func (e *exported) mostOf(name string) (most int64, known bool) {
	spec := &e.Manifest.Spec
	switch {
	case name == Memory:
		return int64(spec.MemoryMiB) << 20, true
	case name == Disk && spec.RootfsWritable: // a copy of the base
		i := slices.IndexFunc(e.Files, func(file content) bool { return file.Name == baseFile })
		return e.sizeOf(i), true
	case name == Disk && spec.LayerMiB > 0:
		return int64(spec.LayerMiB) << 20, true
	}
	return 0, false
}

func (e *exported) sizeOf(file int) int64 {
	if file < 0 {
		return 0
	}
	return e.Files[file].Size
}

func (m *Manifest) knows(name string) bool {
	if number, ok := strings.CutPrefix(name, drivePrefix); ok {
		i, err := strconv.Atoi(number)
		return err == nil && i >= 0 && i < len(m.Spec.Drives) && strconv.Itoa(i) == number
	}
	return slices.Contains([]string{State, Memory, Disk, kernelFile, initrdFile, baseFile}, name)
}
