//! Merges shards that have whole parts: what their records say is put together, and their files are taken over under other
//! names, unread. So its cost depends on the number of files and not on that of the photos.

use std::path::{Path, PathBuf};

use super::config::{Config, Masks};
use super::counts::CountedParts;
use super::parts::Written;
use super::plan::NEXT_PHOTO_ID;
use super::table_figures::TableFigures;
use super::whole_parts::WholeParts;
use crate::error::{Error, Result};
use crate::features::layout;
use crate::features::rows::{Format, IPC_EXTENSION};
use crate::files::OpenFolder;
use crate::labels::LabelSet;
use crate::rejects;
use crate::stage::{InputRecord, Stage, Summary, TableForm};
use crate::table;

/// What the shards recorded, if all have whole parts of one and the same catalogue, and no masks.
fn recorded(shards: &[&Summary]) -> Option<Vec<WholeParts>> {
    let whole = shards.iter().map(|it| WholeParts::of(it)).collect::<Option<Vec<_>>>()?;
    let is_one = whole.windows(2).all(|it| it[0].catalogue == it[1].catalogue);
    let has_masks = |made: &&Summary| made.config.setting("masks") != Some(Masks::None);
    (is_one && !shards.iter().any(has_masks)).then_some(whole)
}

/// Which files of the shards a merge takes over unread; `None` if it reads them.
pub(super) fn unread(config: &Config, shards: &[&Summary]) -> Option<fn(&Path) -> bool> {
    // The first part of a shard says of which categories and colours it is.
    let is_unread = |name: &Path| is_of_rows(name) && name != Path::new(&table::part_name(0));
    (config.table != TableForm::Delta && recorded(shards).is_some()).then_some(is_unread)
}

/// Whether a file has rows or states, of the table or of vanished photos.
fn is_of_rows(name: &Path) -> bool {
    layout::is_part_or_state(name) || name.starts_with(layout::VANISHED_FOLDER)
}

/// Merges the shards by what they recorded; `None` if they have no whole parts.
pub(super) fn merge(
    config: &Config,
    shards: &[(OpenFolder, Summary)],
    labels: &LabelSet,
    stage: &mut Stage,
) -> Result<Option<Written>> {
    let summaries: Vec<&Summary> = shards.iter().map(|(_, made)| made).collect();
    let Some(whole) = recorded(&summaries) else { return Ok(None) };
    let parts = take_parts(config, shards, &whole, stage)?;
    take_vanished(shards, stage)?;
    let mut written = Written { labels: labels.clone(), parts, ..Written::default() };
    for (folder, _) in shards {
        written.rejects.extend(rejects::read(&folder.path(layout::REJECTS_FILE))?);
    }
    written.rejects.sort_by(|a, b| a.item.cmp(&b.item));
    written.vanished = whole.iter().fold([0; 2], |sum, it| [sum[0] + it.vanished[0], sum[1] + it.vanished[1]]);
    written.figures = Some(TableFigures::of_shards(labels, shards)?);
    inputs(shards)?.into_iter().flatten().for_each(|it| stage.record(it));
    let next_photo_id = summaries.iter().filter_map(|it| it.counts.count(NEXT_PHOTO_ID)).max().unwrap_or(0);
    CountedParts { parts, next_photo_id, passed_over: whole[0].passed_over.clone() }.count(stage);
    Ok(Some(written))
}

/// Takes over the parts of all shards, in their order in the table; returns how many there are.
fn take_parts(
    config: &Config,
    shards: &[(OpenFolder, Summary)],
    whole: &[WholeParts],
    stage: &mut Stage,
) -> Result<usize> {
    let of_shard = |(shard, it): (usize, &WholeParts)| {
        it.places.iter().enumerate().map(|(part, &place)| (place, shard, part)).collect::<Vec<_>>()
    };
    let mut parts: Vec<(u32, usize, usize)> = whole.iter().enumerate().flat_map(of_shard).collect();
    parts.sort_unstable();
    if parts.is_empty() {
        // A shard without photos has an empty part.
        parts.push((0, 0, 0));
    }
    for (number, &(_, shard, part)) in parts.iter().enumerate() {
        let [from, to] = [part, number].map(|it| PathBuf::from(table::part_name(it)));
        take(stage, &shards[shard], &from, &to)?;
        if config.format == Format::Arrow {
            take(stage, &shards[shard], &from.with_extension(IPC_EXTENSION), &to.with_extension(IPC_EXTENSION))?;
        }
        take(stage, &shards[shard], &layout::state_file(part), &layout::state_file(number))?;
    }
    Ok(parts.len())
}

/// Takes a file of a shard over under another name.
fn take(stage: &mut Stage, (folder, made): &(OpenFolder, Summary), name: &Path, new: &Path) -> Result<()> {
    let missing = || Error::input(folder.name().join(name), "is missing in the shard's record; run the shard again");
    let file = made.files.iter().find(|it| it.name == name).ok_or_else(missing)?;
    stage.take_over(folder, file, new)
}

/// Takes over the parts with vanished photos, shard by shard.
fn take_vanished(shards: &[(OpenFolder, Summary)], stage: &mut Stage) -> Result<()> {
    let place = |number: usize| {
        let names = [PathBuf::from(table::part_name(number)), layout::state_file(number)];
        names.map(|name| Path::new(layout::VANISHED_FOLDER).join(name))
    };
    let mut next = 0;
    for shard in shards {
        let has = |name: &Path| shard.1.files.iter().any(|it| it.name == name);
        for names in (0..).map(place).take_while(|[part, _]| has(part)) {
            for (from, to) in names.iter().zip(place(next)) {
                take(stage, shard, from, &to)?;
            }
            next += 1;
        }
    }
    Ok(())
}

/// What the shards read, if they have whole parts: all the same, except for the photos, of which each has its own.
pub(super) fn inputs(shards: &[(OpenFolder, Summary)]) -> Result<Option<Vec<InputRecord>>> {
    if recorded(&shards.iter().map(|(_, made)| made).collect::<Vec<_>>()).is_none() {
        return Ok(None);
    }
    let (first, made) = &shards[0];
    let whole = |(number, input): (usize, &InputRecord)| {
        if !input.is_many {
            return Ok(input.clone());
        }
        let of_shards = shards.iter().map(|(_, made)| made.inputs.get(number)).collect::<Option<Vec<_>>>();
        let unlike = || Error::input(first.name(), "has other inputs than the other shards; run the shards again");
        of_shards.and_then(|it| InputRecord::of_all(&it)).ok_or_else(unlike)
    };
    made.inputs.iter().enumerate().map(whole).collect::<Result<_>>().map(Some)
}
