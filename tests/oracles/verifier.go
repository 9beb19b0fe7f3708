// Verifier judges a log in C2SP form with golang.org/x/mod/sumdb, which knows nothing of checkrein.
//
//	verifier log VKEY DIRECTORY [OLDER-CHECKPOINT ...]
//	verifier proofs VKEY DIRECTORY                 claims on standard input, as JSON
//	verifier cosigned VKEY WITNESS-VKEY DIRECTORY
//	verifier receipt VKEY RECEIPT RECORD           files; see receipts.go
//	verifier consistency VKEY PROOF OLDER-CHECKPOINT
//	verifier sign PRIVATE-KEY                      a text on standard input
//
// It prints what holds and ends with 0, or prints what does not and ends with 1.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8
	width  = 1 << height
	// The first line that tlog expects where a C2SP checkpoint has the log's origin.
	sumdbOrigin = "go.sum database tree\n"
)

func main() {
	said, err := run(os.Args[1:])
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Print(said)
}

func run(args []string) (string, error) {
	switch {
	case len(args) >= 3 && args[0] == "log":
		return checkLog(args[1], args[2], args[3:])
	case len(args) == 3 && args[0] == "proofs":
		return checkProofs(args[1], args[2])
	case len(args) == 4 && args[0] == "cosigned":
		return checkCosigned(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "receipt":
		return checkReceipt(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "consistency":
		return checkConsistency(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "sign":
		return sign(args[1])
	}
	return "", errors.New("usage: see the top of the source")
}

// checkLog opens the head, authenticates every tile below it, and then checks that each record of
// each bundle is included and that the tree extends each of the older heads.
func checkLog(vkey, directory string, older []string) (string, error) {
	tree, err := openCheckpoint(vkey, filepath.Join(directory, "checkpoint"))
	if err != nil {
		return "", err
	}
	hashes, err := readHashes(tree, directory)
	if err != nil {
		return "", err
	}
	if err := checkRecords(tree, hashes, directory); err != nil {
		return "", err
	}
	for _, path := range older {
		if err := checkExtends(tree, hashes, vkey, path); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d records, %d older heads\n", tree.N, len(older)), nil
}

// openCheckpoint returns the tree that the note at path promises, if the key signed it under its name.
func openCheckpoint(vkey, path string) (tlog.Tree, error) {
	signed, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	return openNote(vkey, signed)
}

// openNote returns the tree that a note promises, if the key signed it under its name.
func openNote(vkey string, signed []byte) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	origin, rest, _ := strings.Cut(opened.Text, "\n")
	if origin != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("the head is of %q", origin)
	}
	return tlog.ParseTree([]byte(sumdbOrigin + rest))
}

// hashList serves hashes that were authenticated before.
type hashList []tlog.Hash

func (list hashList) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(list)) {
			return nil, fmt.Errorf("there is no hash %d", index)
		}
		found[i] = list[index]
	}
	return found, nil
}

// readHashes reads all hashes of the tree from its tiles; tlog authenticates each tile.
func readHashes(tree tlog.Tree, directory string) (hashList, error) {
	if tree.N == 0 {
		if tree.Hash != sha256.Sum256(nil) {
			return nil, errors.New("an empty tree has another hash")
		}
		return nil, nil
	}
	reader := tlog.TileHashReader(tree, tileDirectory(directory))
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, errors.New("the tiles give another tree hash")
	}
	indexes := make([]int64, tlog.StoredHashCount(tree.N))
	for i := range indexes {
		indexes[i] = int64(i)
	}
	return reader.ReadHashes(indexes)
}

// tileDirectory reads tiles where C2SP tlog-tiles puts them: as tlog does, but without the height.
type tileDirectory string

func (directory tileDirectory) Height() int { return height }

func (directory tileDirectory) SaveTiles([]tlog.Tile, [][]byte) {}

func (directory tileDirectory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(directory), path))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

// checkRecords reads all bundles and proves each record to be in the tree, at its place.
func checkRecords(tree tlog.Tree, hashes hashList, directory string) error {
	for start := int64(0); start < tree.N; start += width {
		records, err := readBundle(directory, start, tree.N)
		if err != nil {
			return err
		}
		for i, record := range records {
			index := start + int64(i)
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return err
			}
			hash := tlog.RecordHash(record)
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, hash); err != nil {
				return fmt.Errorf("record %d: %v", index, err)
			}
		}
	}
	return nil
}

// readBundle returns the records in the bundle that begins with record start.
func readBundle(directory string, start, size int64) ([][]byte, error) {
	count := size - start
	if count > width {
		count = width
	}
	tile := tlog.Tile{H: height, L: -1, N: start / width, W: int(count)}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", height), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(directory, path))
	if err != nil {
		return nil, err
	}
	var records [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s: a length is wrong", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		records, data = append(records, data[2:end]), data[end:]
	}
	if int64(len(records)) != count {
		return nil, fmt.Errorf("%s: %d records instead of %d", path, len(records), count)
	}
	return records, nil
}

// checkExtends proves that the tree extends the one that the older head at path promises.
func checkExtends(tree tlog.Tree, hashes hashList, vkey, path string) error {
	old, err := openCheckpoint(vkey, path)
	if err != nil {
		return err
	}
	if old.N == 0 {
		return nil // everything extends the empty tree, and tlog has no proof of it
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return fmt.Errorf("the head of %d records is not extended: %v", old.N, err)
	}
	return nil
}

// claim is what a proof is said to prove: a record at an index, or an older tree.
type claim struct {
	Index  int64
	Record []byte
	Old    int64
	Root   tlog.Hash
	Proof  []tlog.Hash
}

// checkProofs checks proofs that somebody else made, against the head in the directory.
func checkProofs(vkey, directory string) (string, error) {
	tree, err := openCheckpoint(vkey, filepath.Join(directory, "checkpoint"))
	if err != nil {
		return "", err
	}
	var claims []claim
	if err := json.NewDecoder(os.Stdin).Decode(&claims); err != nil {
		return "", err
	}
	for i, one := range claims {
		if one.Old > 0 {
			err = tlog.CheckTree(one.Proof, tree.N, tree.Hash, one.Old, one.Root)
		} else {
			hash := tlog.RecordHash(one.Record)
			err = tlog.CheckRecord(one.Proof, tree.N, tree.Hash, one.Index, hash)
		}
		if err != nil {
			return "", fmt.Errorf("claim %d: %v", i, err)
		}
	}
	return fmt.Sprintf("%d proofs\n", len(claims)), nil
}

// cosigner verifies the timestamped signatures of a witness (C2SP tlog-cosignature, Ed25519).
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }

func (c cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
	return ed25519.Verify(c.key, []byte(message), signature[8:])
}

func newCosigner(vkey string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("this is not the key of a witness")
	}
	sum := sha256.Sum256([]byte(name + "\n" + string(key)))
	if id != fmt.Sprintf("%x", sum[:4]) {
		return nil, errors.New("the witness's key has another id")
	}
	return cosigner{name, binary.BigEndian.Uint32(sum[:4]), key[1:]}, nil
}

// checkCosigned requires the signature of the log and that of the witness.
func checkCosigned(vkey, witness, directory string) (string, error) {
	log, err := note.NewVerifier(vkey)
	if err != nil {
		return "", err
	}
	other, err := newCosigner(witness)
	if err != nil {
		return "", err
	}
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return "", err
	}
	opened, err := note.Open(signed, note.VerifierList(log, other))
	if err != nil {
		return "", err
	}
	if len(opened.Sigs) != 2 {
		return "", fmt.Errorf("%d known signatures instead of 2", len(opened.Sigs))
	}
	return "cosigned\n", nil
}

// sign returns the note of a text, signed by Go.
func sign(skey string) (string, error) {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	return string(signed), err
}
