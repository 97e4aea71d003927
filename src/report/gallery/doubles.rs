//! The groups of near-duplicates that the gallery folds into one tile each.

use std::collections::HashMap;

use serde::Serialize;

use super::column::Column;
use crate::duplicates::GroupedPhoto;

/// Which photos stand for the same picture.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Groups {
    /// For each photo its group, counted from 0: u32.
    groups: Column,
    /// For each group the photo that stands for it, the representative if it is shown: u32.
    first: Column,
}

/// The groups of the photos that are shown, by row. A photo that `grouped` does not know is a group of its own.
pub(super) fn groups(photo_ids: &[u32], grouped: &[GroupedPhoto]) -> Groups {
    let group_ids: HashMap<u32, u32> = grouped.iter().map(|it| (it.photo_id, it.group_id)).collect();
    // Group ids are ids of photos in `grouped`, so the own id of any other photo is not that of a group.
    let group_id = |id: &u32| group_ids.get(id).copied().unwrap_or(*id);
    let (mut numbers, mut first): (HashMap<u32, u32>, Vec<u32>) = (HashMap::new(), Vec::new());
    let mut groups = Vec::with_capacity(photo_ids.len());
    for (row, id) in (0..).zip(photo_ids) {
        let number = *numbers.entry(group_id(id)).or_insert_with(|| {
            first.push(row);
            first.len() as u32 - 1
        });
        if group_id(id) == *id {
            first[number as usize] = row;
        }
        groups.push(number);
    }
    Groups { groups: Column::of_u32(&groups), first: Column::of_u32(&first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_rows_and_their_representative_stands_for_them() {
        let of = |photo_id, group_id| GroupedPhoto {
            photo_id,
            group_id,
            distance: 0,
            is_representative: photo_id == group_id,
            is_exact_copy: false,
        };
        let grouped = [of(3, 9), of(4, 4), of(7, 2), of(8, 2), of(9, 9)];
        // 2, which stands for 7 and 8, is not shown, and 5 is not known.
        let found = groups(&[3, 4, 5, 7, 8, 9], &grouped);
        assert_eq!(found.groups, Column::of_u32(&[0, 1, 2, 3, 3, 0]));
        assert_eq!(found.first, Column::of_u32(&[5, 1, 2, 3]));
    }
}
