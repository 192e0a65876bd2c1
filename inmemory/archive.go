package inmemory

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// An export is lines: what it is, JSON of exported, the public key or nothing, and last the signature of the lines before it, or their sha256. It is of this package alone.
const (
	exportLine = "inmemory snapshot\n"
	maxExport  = 16 << 20 // bytes
)

type exported struct {
	Info    microvm.SnapshotInfo `json:"info"`
	Network bool                 `json:"network"`
}

func (d *driver) ExportSnapshot(ctx context.Context, uid string, w io.Writer, o microvm.ExportOptions) error {
	s, err := d.findSnapshot(ctx, "export snapshot", uid)
	if err != nil {
		return err
	}
	e := exported{s.info, s.network}
	d.mu.Unlock()
	e.Info.Kind, e.Info.Parent, e.Info.Ephemeral = microvm.SnapshotFull, "", false
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	lines, key := exportLine+string(text)+"\n", ""
	if o.Key != nil {
		key = hex.EncodeToString(o.Key.Public().(ed25519.PublicKey))
	}
	lines += key + "\n"
	last := sha256.Sum256([]byte(lines))
	seal := last[:]
	if o.Key != nil {
		seal = ed25519.Sign(o.Key, []byte(lines))
	}
	_, err = io.WriteString(w, lines+hex.EncodeToString(seal)+"\n")
	return err
}

func (d *driver) ImportSnapshot(ctx context.Context, name string, r io.Reader, o microvm.ImportOptions) (info microvm.SnapshotInfo, err error) {
	if err := context.Cause(ctx); err != nil {
		return info, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxExport))
	if err != nil {
		return info, err
	}
	e, err := parseExport(string(text), o)
	if err != nil {
		return info, err
	}
	info = e.Info
	info.UID, info.Name = strings.ToLower(rand.Text()[:12]), cmp.Or(name, info.Name)
	if err := d.enter(ctx, "import snapshot", info.Name); err != nil {
		return info, err
	}
	defer d.mu.Unlock()
	for _, s := range d.snapshots {
		if s.info.Name == info.Name {
			return info, fmt.Errorf("snapshot %q: %w", info.Name, microvm.ErrExists)
		}
	}
	if d.snapshots == nil {
		d.snapshots = map[string]*snapshot{}
	}
	d.snapshots[info.UID] = &snapshot{info: info, network: e.Network}
	return info, nil
}

// parseExport reads an export whose maker is trusted.
func parseExport(text string, o microvm.ImportOptions) (e exported, err error) {
	bad := func(reason string) (exported, error) {
		return exported{}, fmt.Errorf("%w export: %s", microvm.ErrInvalid, reason)
	}
	lines := strings.SplitAfter(text, "\n")
	if len(lines) != 5 || lines[0] != exportLine || lines[4] != "" {
		return bad("it is none of a snapshot")
	}
	key, signed := strings.TrimSuffix(lines[2], "\n"), strings.Join(lines[:3], "")
	if !o.Unsigned && !slices.ContainsFunc(o.Trusted, func(trusted ed25519.PublicKey) bool { return hex.EncodeToString(trusted) == key }) {
		return bad("nobody who is trusted has signed it")
	}
	seal, err := hex.DecodeString(strings.TrimSuffix(lines[3], "\n"))
	if err != nil || hex.EncodeToString(seal)+"\n" != lines[3] {
		return bad("its last line")
	}
	if sum := sha256.Sum256([]byte(signed)); key == "" && string(sum[:]) != string(seal) {
		return bad("it is not what was exported")
	}
	if public, err := hex.DecodeString(key); key != "" && (err != nil || len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, []byte(signed), seal)) {
		return bad("its signature is not that of its key")
	}
	if err := json.Unmarshal([]byte(lines[1]), &e); err != nil {
		return bad(err.Error())
	}
	if microvm.ValidateSnapshotName(e.Info.Name) != nil || e.Info.Spec.Validate() != nil {
		return bad("it has no name, or no machine")
	}
	return e, nil
}

// PruneSnapshots knows age and number: there are no files that could be too large.
func (d *driver) PruneSnapshots(ctx context.Context, o microvm.PruneOptions) (deleted []microvm.SnapshotInfo, freed int64, err error) {
	if err := d.enter(ctx, "prune snapshots", ""); err != nil {
		return nil, 0, err
	}
	defer d.mu.Unlock()
	had := maps.Clone(d.snapshots)
	newest := slices.SortedFunc(maps.Values(had), func(a, b *snapshot) int { return b.info.Created.Compare(a.info.Created) })
	of := map[string]int{}
	for _, s := range newest {
		if s.info.Ephemeral {
			continue
		}
		of[s.info.Machine]++
		old := o.OlderThan > 0 && time.Since(s.info.Created) > o.OlderThan
		if (old || o.Keep > 0 && of[s.info.Machine] > o.Keep) && d.deleteSnapshot(s.info.UID) == nil { // else something needs it
			deleted = append(deleted, s.info)
		}
	}
	if o.DryRun {
		d.snapshots = had
	}
	return deleted, 0, nil
}
